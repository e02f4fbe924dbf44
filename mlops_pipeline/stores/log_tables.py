"""The tables of the log of predictions, and the records of answers and shadow scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    MetaData,
    Table,
    Text,
    exists,
)

from mlops_pipeline.stores.ops.declarations import JsonText

Role = Literal["champion", "canary", "previous", "default"]
Scalar = float | int | str | bool | None


@dataclass(frozen=True)
class LoggedPrediction:
    """One answer. Times are microseconds since 1970 (UTC).

    `place` is the position in the request's list. `probability`, `threshold` and `model_version`
    are None of a default, whose `reasons` say why no model decided. `feature_time_us` is that of
    the oldest feature. `latency_us` is the time that the decision took, with reading its features
    (of a list: an equal part); None of a batch.
    """

    id: str
    use_case: str
    entity: str
    at_us: int
    caller: str
    request_id: str
    place: int
    request_digest: str
    model_version: int | None
    role: Role
    probability: float | None
    decision: bool
    threshold: float | None
    needs_review: bool
    reasons: Sequence[str]
    features: Mapping[str, Scalar]
    feature_time_us: int | None
    latency_us: int | None


@dataclass(frozen=True)
class ShadowScore:
    """What the version that did not answer says of the same row; `at_us` is the answer's.

    `decision` is the default's where it may not decide (`is_default`) or failed (`failure` says
    how); then there is no probability. `latency_us` counts the reading of features, as an answer's.
    """

    prediction_id: str
    use_case: str
    entity: str
    at_us: int
    version: int
    probability: float | None
    decision: bool
    threshold: float | None
    is_default: bool
    failure: str | None
    latency_us: int


_TYPES: Mapping[Any, Any] = {int: BigInteger, float: Double, str: Text, bool: Boolean, Role: Text}
metadata = MetaData()


def _columns(record: type, key: str, *links: ForeignKey) -> list[Column[Any]]:
    """Return the columns of a record's table."""
    return [
        Column(
            item.name,
            next((_TYPES[kind] for kind in _TYPES if item.type in (kind, kind | None)), JsonText),
            *(links if item.name == key else ()),
            nullable=item.type in (int | None, float | None, str | None),
            primary_key=item.name == key,
        )
        for item in fields(record)
    ]


PREDICTION = Table("prediction", metadata, *_columns(LoggedPrediction, "id"))
Index("prediction_request", *(PREDICTION.c[name] for name in
      ("use_case", "caller", "request_id", "place")), unique=True)  # fmt: skip
Index("prediction_entity", PREDICTION.c.use_case, PREDICTION.c.entity)
Index(
    "prediction_flagged",
    PREDICTION.c.use_case,
    sqlite_where=PREDICTION.c.needs_review,
    postgresql_where=PREDICTION.c.needs_review,
)


REVIEW = Table(
    "review",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("use_case", "entity", "verdict")),
    Column("decision", Boolean, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("by", "reason")),
    Column("at_us", BigInteger, nullable=False),
)
Index("review_entity", REVIEW.c.use_case, REVIEW.c.entity)
# a score goes with its answer, whoever removes that
_OF_ANSWER = ForeignKey("prediction.id", ondelete="CASCADE")
SHADOW = Table("shadow", metadata, *_columns(ShadowScore, "prediction_id", _OF_ANSWER))
ARCHIVED = Table("archived", metadata, Column("id", Text, primary_key=True))  # in the lake
_OF_SCORE = ForeignKey("shadow.prediction_id", ondelete="CASCADE")
ARCHIVED_SHADOW = Table(
    "archived_shadow", metadata, Column("id", Text, _OF_SCORE, primary_key=True)
)
IS_REVIEWED = exists().where(REVIEW.c.prediction_id == PREDICTION.c.id)
IS_ARCHIVED = exists().where(ARCHIVED.c.id == PREDICTION.c.id)
IS_SHADOW_ARCHIVED = exists().where(ARCHIVED_SHADOW.c.id == SHADOW.c.prediction_id)
