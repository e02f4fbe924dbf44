"""Reviews over HTTP: who waits for a person, and what the person says.

GET  /v1/reviews                   the answers that wait, the oldest first
POST /v1/reviews/{prediction_id}   a verdict, with a name and a reason
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.responses import JSONResponse, Response

from mlops_pipeline.lifecycle.reviews import Said, review_document
from mlops_pipeline.lifecycle.serve import answer
from mlops_pipeline.serving.key_uses import caller
from mlops_pipeline.serving.predict import ANSWER, Answer, Body, service_of
from mlops_pipeline.serving.problems import NEVER_STORE, problem_responses
from mlops_pipeline.stores.reviews import Verdict

WAITING_AT_ONCE = 1_000
EXAMPLE: dict[str, JsonValue] = {
    "use_case": "churn", "verdict": "overturned", "by": "Ann", "reason": "moved house"
}  # fmt: skip

router = APIRouter(prefix="/v1")


class Waiting(Answer):
    """An answer that waits, with what it was made of."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**ANSWER, "features": {"data_gb_last": 4.125}}]}
    )

    features: dict[str, float | int | bool | str | None]


class Queue(BaseModel):
    """The answers that wait, the oldest first."""

    reviews: list[Waiting]


class ReviewBody(Body):
    """What a person says."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    use_case: str | None = Field(None, description="Needed where several are served.")
    verdict: Verdict
    by: str = Field(description="The name of the person: self-asserted, recorded.")
    reason: str = Field(description="Why; recorded.")


class Reviewed(BaseModel):
    """What counts from now on."""

    prediction_id: str
    verdict: Verdict
    decision: bool
    by: str
    reason: str
    reviewed_at: str


@router.get("/reviews", response_model=Queue, responses=problem_responses(404, 422, 503))
def list_reviews(
    request: Request,
    use_case: str | None = None,
    limit: Annotated[int, Query(ge=1, le=WAITING_AT_ONCE)] = 100,
) -> Response:
    """List the answers that a person has to look at, the oldest first, with their features."""
    found = service_of(request, use_case).waiting(limit)
    request.state.entity_id = [one.entity for one in found]  # whose features were shown
    shown = [{**answer(one), "features": dict(one.features)} for one in found]
    return JSONResponse({"reviews": shown}, headers=NEVER_STORE)


@router.post(
    "/reviews/{prediction_id}", response_model=Reviewed, responses=problem_responses(404, 409, 422)
)
def review(request: Request, prediction_id: str, body: ReviewBody) -> Response:
    """Confirm or overturn an answer; the same again changes nothing, another verdict is refused."""
    said = Said(body.verdict, body.by, body.reason, caller(request.scope))
    made = service_of(request, body.use_case).review(prediction_id, said)
    request.state.entity_id = made.entity
    document: dict[str, Any] = {
        "prediction_id": made.prediction_id,
        **(review_document(made) or {}),
    }
    return JSONResponse(document, headers=NEVER_STORE)
