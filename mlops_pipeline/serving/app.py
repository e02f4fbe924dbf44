"""The app: its endpoints, what it opens and closes, and serving it on loopback.

    GET /features/{entity}/{id}   features.py
    GET /health/live              the process answers
    GET /health/ready             the online store answers

Belongs here: putting the parts together. It loads nothing from other hosts: there are no pages of
documentation, whose scripts would come from a network; `/openapi.json` describes the endpoints.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import OnlineDefinitionError
from mlops_pipeline.lifecycle.features.online.feature_reads import request_features
from mlops_pipeline.serving import features
from mlops_pipeline.serving.feature_uses import FeatureUses
from mlops_pipeline.serving.key_uses import CountedRequests, KeyUses
from mlops_pipeline.serving.problems import NEVER_STORE, add_handlers
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from mlops_pipeline.lifecycle.features.online.reader import OnlineReader

HOST = "127.0.0.1"
PROBE_ID = "0"  # of any type of key; whether there is one does not matter


def create_app(
    use_cases: Mapping[str, UseCase],
    settings: Settings,
    *,
    readers: Mapping[str, "OnlineReader"] | None = None,
) -> FastAPI:
    """Return the app that serves these use cases.

    Parameters
    ----------
    readers : mapping of use case name to reader, optional
        Open readers, which stay open. Default: the app opens its own when it starts and closes
        them when it ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            opened = readers
            if opened is None:
                opened = _open_readers(use_cases, settings, stack)
            app.state.key_uses = stack.enter_context(KeyUses(settings))
            app.state.served = features.Served(use_cases, opened, FeatureUses(settings))
            yield

    app = FastAPI(title="mlops_pipeline", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(CountedRequests)
    app.include_router(features.router)
    app.add_api_route("/health/live", live, methods=["GET"])
    app.add_api_route("/health/ready", ready, methods=["GET"])
    add_handlers(app)
    return app


async def live() -> Response:
    """Say that the process answers; it waits for no thread, so a slow store does not hide it."""
    return JSONResponse({"status": "live"}, headers=NEVER_STORE)


def ready(request: Request) -> Response:
    """Say that the online store answers, and which use cases it holds.

    A use case that was never materialized keeps the others from nothing.
    """
    served: features.Served = request.app.state.served
    held = {name: _is_held(served.use_cases[name], item) for name, item in served.readers.items()}
    return JSONResponse({"status": "ready", "materialized": held}, headers=NEVER_STORE)


def http_server(
    use_cases: Mapping[str, UseCase], settings: Settings, port: int
) -> "uvicorn.Server":
    """Return a server on loopback; it logs no requests, whose paths hold ids of people."""
    import uvicorn

    app = create_app(use_cases, settings)
    config = uvicorn.Config(app, host=HOST, port=port, access_log=False, log_level="warning")
    return uvicorn.Server(config)


def _is_held(use_case: UseCase, reader: "OnlineReader") -> bool:
    """Ask the store for anybody: it answers, or raises."""
    needs_request = request_features(use_case)
    probe = [name for name in reader.names if name not in needs_request][:1]
    try:
        reader.read([PROBE_ID], probe)
    except OnlineDefinitionError:  # an answer, too
        return False
    return True


def _open_readers(
    use_cases: Mapping[str, UseCase], settings: Settings, stack: ExitStack
) -> dict[str, "OnlineReader"]:
    from mlops_pipeline.lifecycle.features.online.reader import open_reader

    return {
        name: stack.enter_context(open_reader(use_case, settings, is_noted=False))
        for name, use_case in use_cases.items()
    }
