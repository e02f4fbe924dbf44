"""What is made of a row's own values, once they stand beside each other.

Belongs here: defaults of the unseen, derived features. Where the values come from is frames.py's.
"""

from typing import Any

from mlops_pipeline.config.features import COUNTS
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.compile import compiled
from mlops_pipeline.core.features.aggregates import typed


def completed(use_case: UseCase, frame: Any) -> Any:
    """Add what is made of a row's own values: defaults of the unseen, derived features."""
    frame = _with_unseen(use_case, frame)
    for name, derived in use_case.derived.items():
        value = compiled(derived.expression, frame)
        frame = frame.mutate(**{name: typed(value, derived.dtype, derived.precision)})
    return frame


def _with_unseen(use_case: UseCase, frame: Any) -> Any:
    """Fill what an entity without any row gets: counts 0, others their `unseen`."""
    filled = {}
    for view in use_case.views.values():
        for name, column in view.columns.items():
            value = column.unseen
            if value is None and column.aggregate in COUNTS:
                value = 0
            if value is not None:
                filled[name] = typed(frame[name].fill_null(value), column.dtype, column.precision)
    return frame.mutate(**filled) if filled else frame
