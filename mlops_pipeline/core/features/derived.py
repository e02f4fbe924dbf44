"""What is made of a row's own values once they stand beside each other, of tables and of rows.

Belongs here: defaults of the unseen, derived features. Where the values come from is frames.py's
and the online store's.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_ibis import to_ibis, typed
from mlops_pipeline.core.expressions.to_row import Declared, values_function
from mlops_pipeline.core.expressions.types import Kind, Value


def with_derived(use_case: UseCase, frame: Any) -> Any:
    """Return the frame with defaults of the unseen and derived features."""
    frame = _with_unseen(use_case, frame)
    for name, derived in use_case.derived.items():
        value = to_ibis(derived.expression, frame)
        frame = frame.mutate(**{name: typed(value, derived.dtype, derived.precision)})
    return frame


def derived_features(
    use_case: UseCase, inputs: Sequence[str]
) -> Callable[[Sequence[Value]], list[Value]]:
    """Return the function of derived features, in their order, of a row of these view features."""
    definitions = {
        name: Declared(item.expression, item.dtype, item.precision)
        for name, item in use_case.derived.items()
    }
    kinds = {name: cast(Kind, use_case.feature_type(name)) for name in inputs}
    return values_function(definitions, kinds, is_chained=True)


def _with_unseen(use_case: UseCase, frame: Any) -> Any:
    """Fill what an entity without any row gets: counts 0, others their `unseen`."""
    filled = {}
    for view in use_case.views.values():
        for name, column in view.columns.items():
            if column.fill is not None:
                value = frame[name].fill_null(column.fill)
                filled[name] = typed(value, column.dtype, column.precision)
    return frame.mutate(**filled) if filled else frame
