"""What people say about logged answers, beside the log: who waits for it, and what was said.

Reviews are rows of the log's database, so that whoever is forgotten is forgotten there too. What
may be said, and the audit chain, are lifecycle/reviews.py's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, insert, select

from mlops_pipeline.stores.log_tables import IS_REVIEWED, PREDICTION, REVIEW, LoggedPrediction
from mlops_pipeline.stores.ops.engine import take_turn
from mlops_pipeline.stores.predictions import PredictionLog

Verdict = Literal["confirmed", "overturned"]


@dataclass(frozen=True)
class LoggedReview:
    """What a person said about an answer; `decision` is the one that counts from then on."""

    prediction_id: str
    use_case: str
    entity: str
    verdict: Verdict
    decision: bool
    by: str
    reason: str
    at_us: int


def waiting_for_review(log: PredictionLog, use_case: str, limit: int) -> list[LoggedPrediction]:
    """Return the oldest answers that are flagged and that nobody looked at."""
    return log.select(
        select(PREDICTION)
        .where(PREDICTION.c.use_case == use_case, PREDICTION.c.needs_review, ~IS_REVIEWED)
        .order_by(PREDICTION.c.at_us, PREDICTION.c.id)
        .limit(limit)
    )


def find_review(log: PredictionLog, prediction_id: str) -> LoggedReview | None:
    """Return what a person said about an answer; None if nobody did."""
    query = select(REVIEW).where(REVIEW.c.prediction_id == prediction_id)
    with log.transaction() as connection:
        row = connection.execute(query).mappings().first()
    return None if row is None else LoggedReview(**row)


def add_review(log: PredictionLog, review: LoggedReview, also: Callable[[], object]) -> bool:
    """Store what a person says once `also` is done; whether it is the first about the answer."""
    same = REVIEW.c.prediction_id == review.prediction_id
    with log.transaction(writes=True) as connection:
        take_turn(connection, f"review:{review.prediction_id}")
        if connection.execute(select(REVIEW.c.prediction_id).where(same)).first():
            return False
        connection.execute(insert(REVIEW), [vars(review)])
        also()
    return True


def distances(log: PredictionLog, use_case: str, since_us: int) -> list[tuple[str, float]]:
    """Return the id of each model's answer since a time, and how far it is from its threshold."""
    columns = PREDICTION.c.id, func.abs(PREDICTION.c.probability - PREDICTION.c.threshold)
    query = select(*columns).where(
        PREDICTION.c.use_case == use_case,
        PREDICTION.c.at_us >= since_us,
        PREDICTION.c.probability.is_not(None),
    )
    with log.transaction() as connection:
        return [(row[0], row[1]) for row in connection.execute(query.order_by(PREDICTION.c.id))]
