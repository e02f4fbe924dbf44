"""Which answers of the log are in the lake too, and removing those that are old.

An answer is marked when the commit that has it is in the lake; only marked ones are removed.
"""

from collections.abc import Sequence

from sqlalchemy import delete, exists, insert, select

from mlops_pipeline.stores.predictions import (
    ARCHIVED,
    IS_ARCHIVED,
    IS_REVIEWED,
    PREDICTION,
    LoggedPrediction,
    PredictionLog,
)

IDS_AT_ONCE = 500  # in one statement


def not_archived(log: PredictionLog, use_case: str, limit: int) -> list[LoggedPrediction]:
    """Return the first answers by their id, which begins with their time, that are not marked."""
    query = select(PREDICTION).where(PREDICTION.c.use_case == use_case, ~IS_ARCHIVED)
    return log.select(query.order_by(PREDICTION.c.id).limit(limit))


def mark_archived(log: PredictionLog, ids: Sequence[str]) -> None:
    """Mark answers that are in the lake."""
    with log.transaction(writes=True) as connection:
        for start in range(0, len(ids), IDS_AT_ONCE):
            rows = [{"id": one} for one in ids[start : start + IDS_AT_ONCE]]
            connection.execute(insert(ARCHIVED), rows)


def remove_archived(log: PredictionLog, use_case: str, before_us: int) -> int:
    """Remove marked answers older than a time, unless they wait for a person; return how many."""
    old = (
        PREDICTION.c.use_case == use_case,
        PREDICTION.c.at_us < before_us,
        IS_ARCHIVED,
        ~PREDICTION.c.needs_review | IS_REVIEWED,
    )
    is_there = exists().where(PREDICTION.c.id == ARCHIVED.c.id)
    with log.transaction(writes=True) as connection:
        removed = connection.execute(delete(PREDICTION).where(*old)).rowcount
        connection.execute(delete(ARCHIVED).where(~is_there))
    return removed
