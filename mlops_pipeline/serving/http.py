"""Online features over HTTP: endpoints, what the app opens and closes, and serving it on loopback.

    GET /features/{entity}/{id}   the newest features of one entity, with how fresh they are
    GET /health/live              the process answers
    GET /health/ready             the online store answers

Belongs here: parameters, headers and bodies. What is read is decided by lifecycle; errors become
answers in problems.py. Nothing is loaded from other hosts: there are no pages of documentation,
whose scripts would come from a network; `/openapi.json` describes the endpoints.
"""

import logging
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ConfigError, OnlineDefinitionError
from mlops_pipeline.lifecycle.api_keys import KeyRing
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.lifecycle.features.online.plan import (
    QUESTION,
    feature_list,
    request_features,
    request_texts,
)
from mlops_pipeline.lifecycle.features.online.reader import (
    OnlineFeatures,
    OnlineReader,
    choose_use_case,
    document,
    open_reader,
    read_entity,
)
from mlops_pipeline.lifecycle.serve import PredictionService
from mlops_pipeline.serving import inference_v2, metrics, predict, reviews
from mlops_pipeline.serving.direct import Direct, ServingProtocol
from mlops_pipeline.serving.key_uses import CountedRequests, KeyUses
from mlops_pipeline.serving.metrics import Metrics, Now
from mlops_pipeline.serving.problems import (
    GUARDED,
    NEVER_STORE,
    UNKNOWN_ID,
    add_handlers,
    answer,
    problem_responses,
)
from mlops_pipeline.serving.protection import Gate, Protected, describe_keys, requires_keys
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.predictions import PredictionLog
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"
PROBE_ID = "0"  # of any type of key; whether there is one does not matter

router, health = APIRouter(), APIRouter()


class FeatureUses:
    """Which features are read: recorded once a day for each, not at every read; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._day: date | None = None
        self._recorded: set[tuple[str, str]] = set()

    def new(self, use_case: str, names: Iterable[str]) -> list[str]:
        """Return the features not recorded today; from now on they count as recorded."""
        today = self._settings.now().date()
        with self._lock:
            if today != self._day:
                self._day, self._recorded = today, set()
            found = [name for name in names if (use_case, name) not in self._recorded]
            self._recorded.update((use_case, name) for name in found)
        return found

    def record(self, use_case: str, names: list[str]) -> None:
        """Write the use to the ops database."""
        with OpsDatabase.open(self._settings.database_url) as ops:
            record_feature_use(ops, use_case, names, "online", now=self._settings.now())


@dataclass(frozen=True)
class Served:
    """The use cases that an app serves, their open readers, and the record of what is read."""

    use_cases: Mapping[str, UseCase]
    readers: Mapping[str, OnlineReader]
    uses: FeatureUses


def create_app(
    use_cases: Mapping[str, UseCase],
    settings: Settings,
    *,
    asks_for_keys: bool = False,
    readers: Mapping[str, OnlineReader] | None = None,
) -> FastAPI:
    """Return the app that serves these use cases.

    Parameters
    ----------
    asks_for_keys : bool
        Whether a request without a key is refused; a wrong key always is.
    readers : mapping of use case name to reader, optional
        Open readers, which stay open. Default: the app opens its own when it starts and closes
        them when it ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            opened = _open_readers(use_cases, settings, stack) if readers is None else readers
            keys = stack.enter_context(KeyRing(settings))
            app.state.gate = stack.enter_context(Gate(keys, settings, asks_for_keys))
            app.state.key_uses = stack.enter_context(KeyUses(settings))
            app.state.served = Served(use_cases, opened, FeatureUses(settings))
            app.state.metrics = Metrics()
            app.state.services = {
                name: _service(use_cases[name], settings, reader, stack)
                for name, reader in opened.items()
            }
            app.state.metrics.registry.register(Now(app.state.services, app.state.gate.load))
            app.state.direct = Direct(app.state)
            yield

    app = FastAPI(
        title="mlops_pipeline",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would follow the Host header of the request
    )
    app.add_middleware(Protected)
    app.add_middleware(CountedRequests)  # what is refused is counted too
    app.include_router(health)
    app.include_router(inference_v2.health)
    for one in (router, predict.router, reviews.router, inference_v2.router, metrics.router):
        app.include_router(one, responses=problem_responses(*GUARDED))
    add_handlers(app)
    document = app.openapi()  # made once: routes and keys do not change
    describe_keys(document, asks_for_keys)
    return app


def http_server(
    use_cases: Mapping[str, UseCase],
    settings: Settings,
    port: int,
    *,
    host: str = HOST,
    is_strict: bool = False,
    is_insecure: bool = False,
    tls: tuple[Path, Path] | None = None,
) -> "uvicorn.Server":
    """Return a server; it logs no requests, whose paths hold ids of people.

    On loopback it asks for keys when `is_strict`; on any other address unless `is_insecure`.
    With `tls`, the files of a certificate and its key, it speaks HTTPS only.
    """
    import uvicorn

    from mlops_pipeline.serving.limits import (
        CONNECTIONS,
        IDLE_SECONDS,
        FewLines,
    )

    certificate, private_key = tls or (None, None)
    keys = requires_keys(settings, host, is_strict=is_strict, is_insecure=is_insecure)
    config = uvicorn.Config(
        create_app(use_cases, settings, asks_for_keys=keys),
        host=host,
        port=port,
        http=ServingProtocol,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        backlog=CONNECTIONS,
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
        server_header=False,
        access_log=False,
        log_level="warning",
    )
    logging.getLogger("uvicorn.error").addFilter(FewLines())
    try:
        config.load()
    except OSError as error:
        raise ConfigError(
            "the certificate or its key cannot be read",
            where=f"{certificate}, {private_key}",
            expected="PEM files that belong together, the key without a passphrase",
            found=str(error),
        ) from error
    return uvicorn.Server(config)


@router.get("/features/{entity}/{entity_id:path}", responses=problem_responses(404, 422, 503))
def read_features(
    request: Request,
    entity: str,
    entity_id: str,
    features: Annotated[list[str] | None, Query(description="Comma-separated names.")] = None,
    use_case: Annotated[str | None, Query(description="Where several share the entity.")] = None,
) -> Response:
    """Return the newest features of one entity.

    Further query parameters are the source columns that request-time features read.
    """
    served: Served = request.app.state.served
    names = feature_list(features or ())
    chosen = choose_use_case(served.use_cases, entity, names, use_case)
    given = [item for item in request.query_params.multi_items() if item[0] not in QUESTION]
    columns = request_texts(given)
    found = read_entity(served.readers[chosen.name], chosen, entity_id, names, request=columns)
    if not found.is_known:
        return answer(UNKNOWN_ID, more={"entity": entity, "use_case": chosen.name})
    new = served.uses.new(chosen.name, found.values)
    record = BackgroundTask(served.uses.record, chosen.name, new) if new else None
    headers = {**NEVER_STORE, **freshness_headers(found)}
    body = document(chosen, entity_id, found)
    return JSONResponse(body, headers=headers, background=record)


def freshness_headers(found: OnlineFeatures) -> dict[str, str]:
    """Return the headers about freshness.

    `Feature-Time` and `Age` (whole seconds) are of the oldest value, `X-Features-Stale` and
    `X-Features-Missing` name features; each is left out where there is nothing to say.
    """
    headers = {}
    times = [item.feature_time for item in found.values.values()
             if item.status != "missing" and item.feature_time is not None]  # fmt: skip
    if times:
        oldest = min(times)
        headers["Feature-Time"] = oldest.isoformat()
        headers["Age"] = str(max(int((found.read_at - oldest).total_seconds()), 0))
    for status in ("stale", "missing"):
        names = [name for name, item in found.values.items() if item.status == status]
        if names:
            headers[f"X-Features-{status.capitalize()}"] = ",".join(names)
    return headers


@health.get("/health/live")
async def live() -> Response:
    """Say that the process answers; it waits for no thread, so a slow store does not hide it."""
    return JSONResponse({"status": "live"}, headers=NEVER_STORE)


@health.get("/health/ready", responses=problem_responses(503))
def ready(request: Request) -> Response:
    """Say that the online store answers, and which use cases it has features of.

    A use case that was never materialized keeps the others from nothing.
    """
    served: Served = request.app.state.served
    filled = {
        name: _is_filled(served.use_cases[name], item) for name, item in served.readers.items()
    }
    return JSONResponse({"status": "ready", "materialized": filled}, headers=NEVER_STORE)


def _is_filled(use_case: UseCase, reader: OnlineReader) -> bool:
    """Ask the store for anybody: it answers, or raises."""
    needs_request = request_features(use_case)
    probe = [name for name in reader.names if name not in needs_request][:1]
    try:
        reader.read([PROBE_ID], probe)
    except OnlineDefinitionError:  # an answer, too
        return False
    return True


def _service(
    use_case: UseCase, settings: Settings, reader: OnlineReader, stack: ExitStack
) -> PredictionService:
    durability = use_case.serving.log_durability
    log = stack.enter_context(PredictionLog(settings.predictions_url, durability=durability))
    return stack.enter_context(PredictionService(use_case, settings, reader=reader, log=log))


def _open_readers(
    use_cases: Mapping[str, UseCase], settings: Settings, stack: ExitStack
) -> dict[str, OnlineReader]:
    return {
        name: stack.enter_context(open_reader(use_case, settings, is_noted=False))
        for name, use_case in use_cases.items()
    }
