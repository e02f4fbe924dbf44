"""Which features lose by their `precision`, told from a sample of accepted rows.

What is rounded, and how much may be lost, is core/features/rounding.py's.
"""

from typing import Any

from mlops_pipeline.core.features.rounding import (
    PrecisionLoss,
    RoundedFeature,
    derived_features,
    precision_loss,
    source_features,
)
from mlops_pipeline.lifecycle.context import Accepted, Context
from mlops_pipeline.lifecycle.ingest.accepted import register_accepted

SAMPLE_ROWS = 20_000  # of each source: what small values lose shows in nearly every row


def precision_losses(context: Context, accepted: Accepted, *, frame: str) -> list[PrecisionLoss]:
    """Return features that rounding makes (nearly) constant; `frame` is a table of stored rows."""
    use_case, lost = context.use_case, []
    tables = register_accepted(context, accepted)
    samples = {name: table.limit(SAMPLE_ROWS) for name, table in tables.items()}
    stored = context.engine.table(frame)
    rounded = [
        (sample, source_features(use_case, name, sample)) for name, sample in samples.items()
    ]
    for table, features in (*rounded, (stored, derived_features(use_case, stored))):
        lost += _lost(context, table, features)
    return lost


def _lost(context: Context, table: Any, features: list[RoundedFeature]) -> list[PrecisionLoss]:
    """Count the distinct values of all of a table's features in one query."""
    wanted = [count for feature in features for count in feature.counts()]
    if not wanted:
        return []
    named = {f"c{index}": count for index, count in enumerate(wanted)}
    counts = list(context.engine.query(context.engine.compile(table.aggregate(**named)))[0])
    found = []
    for feature in features:
        mine, counts = counts[: 2 * len(feature.places)], counts[2 * len(feature.places) :]
        found.append(precision_loss(feature, mine))
    return [item for item in found if item is not None]
