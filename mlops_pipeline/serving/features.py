"""`GET /features/{entity}/{id}`: online features over HTTP, with how fresh they are.

Belongs here: parameters, headers and the body. What is read is decided by feature_reads.py and the
reader; errors become answers in problems.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.lifecycle.features.online.feature_reads import (
    QUESTION,
    choose_use_case,
    document,
    feature_list,
    read_entity,
    request_texts,
)
from mlops_pipeline.serving.feature_uses import FeatureUses
from mlops_pipeline.serving.problems import NEVER_STORE, UNKNOWN_ID, answer

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.features.online.reader import OnlineFeatures, OnlineReader

router = APIRouter()


@dataclass(frozen=True)
class Served:
    """The use cases that an app serves, their open readers, and who is told what is read."""

    use_cases: Mapping[str, UseCase]
    readers: Mapping[str, "OnlineReader"]
    uses: FeatureUses


@router.get("/features/{entity}/{entity_id:path}")
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
    untold = served.uses.untold(chosen.name, found.values)
    tell = BackgroundTask(served.uses.tell, chosen.name, untold) if untold else None
    body = document(chosen, entity_id, found)
    headers = {**NEVER_STORE, **freshness_headers(found)}
    return JSONResponse(body, headers=headers, background=tell)


def freshness_headers(found: "OnlineFeatures") -> dict[str, str]:
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
