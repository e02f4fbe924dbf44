"""Which rows of the log are in the lake too, and removing those that are old.

A row is marked when the commit that has it is in the lake; only marked ones are removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table, delete, exists, insert, or_, select

from mlops_pipeline.stores.log_tables import (
    ARCHIVED,
    ARCHIVED_SHADOW,
    IS_ARCHIVED,
    IS_REVIEWED,
    IS_SHADOW_ARCHIVED,
    PREDICTION,
    SHADOW,
    LoggedPrediction,
    ShadowScore,
)
from mlops_pipeline.stores.predictions import PredictionLog

IDS_AT_ONCE = 500  # in one statement
Row = LoggedPrediction | ShadowScore


@dataclass(frozen=True)
class Kept:
    """A table of the log whose rows go into the lake: its records, and the marks of those there."""

    record: type[Row]
    key: Column[Any]
    marks: Table
    is_marked: Any

    def id_of(self, row: Row) -> str:
        """Return the id of the answer that a row is of."""
        return str(getattr(row, self.key.name))

    def not_archived(self, log: PredictionLog, use_case: str, limit: int) -> list[Row]:
        """Return the first rows by id, which begins with the answer's time, that are not marked."""
        table = self.key.table
        query = select(table).where(table.c.use_case == use_case, ~self.is_marked)
        with log.transaction() as connection:
            found = connection.execute(query.order_by(self.key).limit(limit)).mappings()
            return [self.record(**row) for row in found]

    def mark_archived(self, log: PredictionLog, ids: Sequence[str]) -> None:
        """Mark rows that are in the lake."""
        with log.transaction(writes=True) as connection:
            for start in range(0, len(ids), IDS_AT_ONCE):
                rows = [{"id": one} for one in ids[start : start + IDS_AT_ONCE]]
                connection.execute(insert(self.marks), rows)


ANSWERS = Kept(LoggedPrediction, PREDICTION.c.id, ARCHIVED, IS_ARCHIVED)
SHADOWS = Kept(ShadowScore, SHADOW.c.prediction_id, ARCHIVED_SHADOW, IS_SHADOW_ARCHIVED)


def remove_archived(log: PredictionLog, use_case: str, before_us: int) -> int:
    """Remove marked answers older than a time, with their scores; return how many.

    Those that wait for a person stay, and those whose score is not marked.
    """
    has_score = exists().where(SHADOW.c.prediction_id == PREDICTION.c.id, ~IS_SHADOW_ARCHIVED)
    old = (
        PREDICTION.c.use_case == use_case,
        PREDICTION.c.at_us < before_us,
        IS_ARCHIVED,
        or_(~PREDICTION.c.needs_review, IS_REVIEWED),
        ~has_score,
    )
    is_there = exists().where(PREDICTION.c.id == ARCHIVED.c.id)
    with log.transaction(writes=True) as connection:
        removed = connection.execute(delete(PREDICTION).where(*old)).rowcount
        connection.execute(delete(ARCHIVED).where(~is_there))
    return removed
