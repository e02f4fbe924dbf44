"""Predictions and labels over HTTP: bodies and answers; what is done is lifecycle's.

POST /v1/predict              what the model says of one entity, or of each in a list
GET  /v1/predictions/{id}     the receipt: an answer with all that it was made of
POST /v1/labels               rows of a source that are known now

Predictions that come as uvicorn's connections bring them are answered by direct.py, in the same
words; here is what describes them, and answers where another server runs the app.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.responses import JSONResponse, Response

from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.entity_rows import MAX_ID, EntityRow
from mlops_pipeline.lifecycle.labels import deliver_labels
from mlops_pipeline.lifecycle.serve import PredictionService, answer
from mlops_pipeline.serving.key_uses import caller
from mlops_pipeline.serving.problems import NEVER_STORE, problem_responses
from mlops_pipeline.stores.predictions import LoggedPrediction, Role
from mlops_pipeline.stores.settings import Settings

Value = float | int | bool | str | None
EntityId = Annotated[int | str, Field(description="The entity's key.")]
EXAMPLE: dict[str, JsonValue] = {"use_case": "churn", "entity_id": 4711, "request_id": "order-17"}
MANY: dict[str, JsonValue] = {
    "use_case": "fraud",
    "entities": [{"entity_id": 17, "request": {"amount": 12.5}}, {"entity_id": "18"}],
}
LABELS: dict[str, JsonValue] = {
    "use_case": "fraud",
    "source": "chargebacks",
    "rows": [{"card": 17, "at": "2025-01-03T09:00:00Z"}],
    "request_id": "case-9",
}
ANSWER: dict[str, JsonValue] = {
    "prediction_id": "00060e6fd2ac4000d41d8cd98f00b204", "entity_id": "4711", "decision": True,
    "probability": 0.3127, "threshold": 0.2, "needs_review": False, "role": "champion",
    "reasons": [], "model_version": 3, "request_id": "order-17",
    "predicted_at": "2025-01-03T09:00:00+00:00", "feature_time": "2025-01-01T00:00:00+00:00",
}  # fmt: skip

Found = TypeVar("Found")

router = APIRouter(prefix="/v1")


class Body(BaseModel):
    """A body without unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Instance(Body):
    """Whom a prediction is about."""

    entity_id: EntityId
    request: dict[str, Value] = Field(
        default_factory=dict, description="Columns of request-time features, by name."
    )
    features: dict[str, Value] | None = Field(
        None, description="All inputs of the model by name, instead of what the store has."
    )


class PredictBody(Body):
    """One entity (`entity_id`) or several (`entities`)."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE, MANY]})

    use_case: str | None = Field(None, description="Needed where several are served.")
    request_id: str | None = Field(
        None, description="The same id with the same body again gets the same answer."
    )
    entity_id: EntityId | None = None
    request: dict[str, Value] = Field(default_factory=dict)
    features: dict[str, Value] | None = None
    entities: list[Instance] | None = None

    def entity_rows(self) -> list[EntityRow]:
        """Return whom the request is about; DataError unless it is one way or the other."""
        one = self.entity_id is not None
        if one == (self.entities is not None):
            raise DataError(
                "the request names no entity, or names them in two ways",
                where="body",
                expected="entity_id, or entities",
                found="both" if one else "neither",
            )
        if self.entities is None:
            return [EntityRow(self.entity_id or "", self.request, self.features)]
        return [EntityRow(item.entity_id, item.request, item.features) for item in self.entities]

    def document(self, made: Sequence[LoggedPrediction]) -> dict[str, Any]:
        """Return what is answered: one answer, or the list of them."""
        answers = [answer(item) for item in made]
        return answers[0] if self.entities is None else {"predictions": answers}


class Answer(BaseModel):
    """What was answered about one entity."""

    model_config = ConfigDict(json_schema_extra={"examples": [ANSWER]})

    prediction_id: str
    entity_id: str
    decision: bool
    probability: float | None = Field(description="Calibrated; null of a default.")
    threshold: float | None
    needs_review: bool
    role: Role
    reasons: list[str] = Field(description="Why the champion did not decide, and `high impact`.")
    model_version: int | None
    request_id: str
    predicted_at: str
    feature_time: str | None = Field(description="Of the oldest feature.")


class Answers(BaseModel):
    """One answer for each entity of a list, in its order."""

    predictions: list[Answer]


@router.post(
    "/predict", response_model=Answer | Answers, responses=problem_responses(404, 409, 422, 503)
)
def predict(request: Request, body: PredictBody) -> Response:
    """Say what the champion says of one entity, or of each in a list.

    The answer leaves when it is in the log. Where no model may decide, `role` is `default`, and
    `reasons` say why.
    """
    service = service_of(request, body.use_case)
    made = service.predict(
        body.entity_rows(), caller=caller(request.scope), request_id=body.request_id
    )
    request.app.state.metrics.decided(made)
    return JSONResponse(body.document(made), headers=NEVER_STORE)


@router.get("/predictions/{prediction_id}", responses=problem_responses(404, 422, 503))
def read_receipt(request: Request, prediction_id: str, use_case: str | None = None) -> Response:
    """Return an answer with its features, and the version with its runs, data and code."""
    document = service_of(request, use_case).receipt(prediction_id)
    request.state.entity_id = document["entity_id"]  # whose features were shown, for the chain
    return JSONResponse(document, headers=NEVER_STORE)


class LabelsBody(Body):
    """Rows of one source."""

    use_case: str | None = Field(None, description="Needed where several are served.")
    model_config = ConfigDict(json_schema_extra={"examples": [LABELS]})

    source: str
    rows: list[dict[str, Value]]
    request_id: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_ID,
        description="The same id with the same rows again gets the first delivery.",
    )


class Delivered(BaseModel):
    """What was stored."""

    delivery: str = Field(description="The name of the file.")
    rows: int
    available_at: str = Field(description="From when on they are known: the arrival.")


@router.post(
    "/labels", status_code=202, response_model=Delivered, responses=problem_responses(404, 409, 422)
)
def take_labels(request: Request, body: LabelsBody) -> Response:
    """Store rows as a delivery, which the next lifecycle ingests."""
    use_case = named(request.app.state.served.use_cases, body.use_case)
    settings: Settings = request.app.state.gate.settings
    request_id = None if body.request_id is None else (caller(request.scope), body.request_id)
    made = deliver_labels(
        use_case, settings, body.source, body.rows, now=settings.now(), request=request_id
    )
    said = {
        "delivery": made.path.name,
        "rows": len(body.rows),
        "available_at": made.arrived_at.isoformat(),
    }
    return JSONResponse(said, 202, headers=NEVER_STORE)


def service_of(request: Request, use_case: str | None) -> PredictionService:
    """Return the service of a use case; of the only one, where none is named."""
    services: Mapping[str, PredictionService] = request.app.state.services
    return named(services, use_case)


def named(known: Mapping[str, Found], use_case: str | None) -> Found:
    """Return what is of a use case; of the only one, where none is named."""
    if use_case is None and len(known) == 1:
        return next(iter(known.values()))
    if use_case is None:
        raise DataError(
            "several use cases are served",
            where="use_case",
            expected=", ".join(known),
            found="none named",
            way_out="name the use case",
        )
    if use_case not in known:
        raise NotFoundError.of("use case", use_case, known, where="use_case")
    return known[use_case]
