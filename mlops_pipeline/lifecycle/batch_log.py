"""Batch scores in the log of predictions, as the service's answers are, each once."""

import hashlib
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import numpy as np

from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel
from mlops_pipeline.errors import RequestConflictError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.offline import row_key
from mlops_pipeline.lifecycle.features.online.layout import to_us
from mlops_pipeline.lifecycle.reviews import HIGH_IMPACT, high_impact
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog

CALLER = "(batch)"  # no name of a key has brackets
ROWS_AT_ONCE = 8_192  # in memory as objects, and waiting for the log


def flag_high_impact(context: Context, table: Any, said: Decisions) -> tuple[Decisions, Any]:
    """Return decisions with those of high impact flagged, and which these are."""
    impacts, holds = np.zeros(len(table), dtype=bool), high_impact(context.use_case)
    if holds is not None:
        impacts = np.fromiter((holds(row) for row in _rows(table)), dtype=bool, count=len(table))
    return said._replace(needs_review=said.needs_review | impacts), impacts


def log_batch(
    context: Context,
    table: Any,
    model: ScoringModel,
    said: Decisions,
    impacts: Any,
    *,
    version: int,
    now: datetime,
) -> None:
    """Store what a version says of the rows of a period; what is stored already stays.

    A row is told by its key and as_of: it is stored once, whatever was killed or erased meanwhile.
    """
    names = [*model.input_names, *model.attributes]
    key, at_us = row_key(context.use_case), to_us(now)
    waiting: deque[Future[None]] = deque()
    with PredictionLog(context.settings.predictions_url) as log:
        for place, row in enumerate(_rows(table)):
            as_of_us = to_us(row["as_of"].replace(tzinfo=UTC))
            request = f"{as_of_us}/{row[key]}/v{version}"
            digest = hashlib.sha256(f"{context.use_case.name}/{request}".encode()).hexdigest()
            made = LoggedPrediction(
                id=f"{at_us:014x}{digest[:16]}",
                use_case=context.use_case.name,
                entity=str(row[context.use_case.entity.key]),
                at_us=at_us,
                caller=CALLER,
                request_id=request,
                place=0,
                request_digest=digest,
                model_version=version,
                role="champion",
                probability=float(said.probability[place]),
                decision=bool(said.decision[place]),
                threshold=float(said.threshold[place]),
                needs_review=bool(said.needs_review[place]),
                reasons=[HIGH_IMPACT] if impacts[place] else [],
                features={name: _plain(row[name]) for name in dict.fromkeys(names)},
                feature_time_us=as_of_us,
                latency_us=None,
            )
            waiting.append(log.append([made]))
            if len(waiting) >= ROWS_AT_ONCE:
                _settle(waiting.popleft())
        for one in waiting:
            _settle(one)


def _settle(stored: Future[None]) -> None:
    try:
        stored.result()
    except RequestConflictError:
        return  # it is there: an earlier run was killed before its table was written


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN is missing."""
    return None if isinstance(value, float) and math.isnan(value) else value
