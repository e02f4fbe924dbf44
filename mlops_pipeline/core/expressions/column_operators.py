"""The operators of expressions as functions of columns: NumPy arrays with a mask of missing values.

Belongs here: what an operator makes of its operands, themselves functions of a selection of rows.
The same operators over one row are operators.py; a property test holds both, and DuckDB, equal.

An operand that a row does not need - a branch not taken, what follows in a coalesce - is not
computed for it: where it would fail, nothing fails. Missing places hold anything of the type.
"""

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.core.expressions.cells import Cells, Mask, Selection
from mlops_pipeline.core.expressions.operators import ARITHMETIC, logarithm
from mlops_pipeline.core.expressions.typed_expressions import Typed
from mlops_pipeline.core.expressions.values import COMPARISONS, INT64_MAX, INT64_MIN, Kind, int64

ColumnFunction = Callable[[Selection], Cells]  # called with NumPy's warnings off: NaN is a value
Maker = Callable[[Typed, Sequence[ColumnFunction]], ColumnFunction]
Array = NDArray[Any]


def _strict(compute: Callable[..., Array], parts: Sequence[ColumnFunction]) -> ColumnFunction:
    """Apply an operator to the values of its operands; a missing one makes the result missing."""

    def of(rows: Selection) -> Cells:
        cells = [part(rows) for part in parts]
        return Cells(compute(*(cell.values for cell in cells)), _any_missing(cells))

    return of


def _any_missing(cells: Sequence[Cells]) -> Mask:
    return reduce(operator.or_, (cell.missing for cell in cells))


def _constant(node: Typed, _parts: Sequence[ColumnFunction]) -> ColumnFunction:
    only = Cells.of([node.detail], node.kind)
    return lambda rows: only.take(np.zeros(len(rows), np.intp))


def _column(node: Typed, _parts: Sequence[ColumnFunction]) -> ColumnFunction:
    return lambda rows: rows.cells(node.detail)


def _as(node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    if node.of == "null":
        return lambda rows: Cells.nothing(len(rows), node.kind)
    return _strict(lambda values: values.astype(np.float64), parts)


def _is_null(_node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    def of(rows: Selection) -> Cells:
        missing = parts[0](rows).missing
        return Cells(missing, np.zeros_like(missing))

    return of


# numbers


def _arithmetic(node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    compute = ARITHMETIC[node.operator]
    if node.kind != "int64":
        return _strict(compute, parts)

    def of(rows: Selection) -> Cells:
        cells = [part(rows) for part in parts]
        missing = _any_missing(cells)
        return Cells(_exact(compute, [np.where(missing, 0, c.values) for c in cells]), missing)

    return of


def _exact(compute: Callable[..., Any], values: Sequence[Array]) -> Array:
    """Compute integers; where 64 bits might not do, one by one, which fails where they do not.

    The results at the ends of the operands' ranges bound all others.
    """
    if values[0].size:
        ends = [(int(item.min()), int(item.max())) for item in values]
        bounds = [compute(*corner) for corner in itertools.product(*ends)]
        if min(bounds) < INT64_MIN or max(bounds) > INT64_MAX:
            rows = zip(*(item.tolist() for item in values), strict=True)
            return np.array([int64(compute(*row)) for row in rows], np.int64)
    found: Array = compute(*values)
    return found


def _divided(_node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    def of(rows: Selection) -> Cells:
        left, right = (part(rows) for part in parts)
        return Cells(
            left.values / right.values, left.missing | right.missing | (right.values == 0.0)
        )

    return of


def _logarithm(_node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    # one by one: NumPy's own differs from the C library's in last bits
    return lambda rows: parts[0](rows).mapped(logarithm, "float64")


# comparisons and truth values


def _equal(left: Array, right: Array) -> Array:
    found: Array = (left == right) | (np.isnan(left) & np.isnan(right))
    return found


def _less(left: Array, right: Array) -> Array:
    found: Array = (left < right) | (np.isnan(right) & ~np.isnan(left))
    return found


_OF_FLOATS: Mapping[str, Callable[[Array, Array], Array]] = {  # NaN as in values.comparison
    "=": _equal,
    "!=": lambda left, right: ~_equal(left, right),
    "<": _less,
    "<=": lambda left, right: ~_less(right, left),
    ">": lambda left, right: _less(right, left),
    ">=": lambda left, right: ~_less(left, right),
}


def _comparison(name: str, kind: Kind) -> Callable[[Cells, Cells], Mask]:
    """Return the comparison of two columns; where one is missing it says false."""
    compare = (_OF_FLOATS if kind == "float64" else COMPARISONS)[name]
    if kind in ("float64", "int64", "boolean"):
        return lambda left, right: (
            compare(left.values, right.values) & ~(left.missing | right.missing)
        )

    def of_objects(left: Cells, right: Cells) -> Mask:
        present = ~(left.missing | right.missing)
        found = np.zeros(len(present), np.bool_)
        found[present] = compare(left.values[present], right.values[present])  # None has no order
        return found

    return of_objects


def _compared(node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    compare = _comparison(node.operator, node.of)

    def of(rows: Selection) -> Cells:
        left, right = (part(rows) for part in parts)
        return Cells(compare(left, right), left.missing | right.missing)

    return of


def _and(_node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    def of(rows: Selection) -> Cells:
        cells = [part(rows) for part in parts]
        false = reduce(operator.or_, (~(cell.values | cell.missing) for cell in cells))
        return Cells(~false, _any_missing(cells) & ~false)

    return of


def _or(_node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    def of(rows: Selection) -> Cells:
        cells = [part(rows) for part in parts]
        true = reduce(operator.or_, (cell.truths for cell in cells))
        return Cells(true, _any_missing(cells) & ~true)

    return of


def _member(node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    known = sorted(node.detail)
    return _strict(lambda values: reduce(operator.or_, (values == item for item in known)), parts)


# choices


def _coalesce(node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    def of(rows: Selection) -> Cells:
        found = Cells.nothing(len(rows), node.kind)
        for part in parts:
            places, missing = rows.chosen(found.missing)
            found.put(places, part(missing))
        return found

    return of


def _nullif(node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    equal = _comparison("=", node.of)

    def of(rows: Selection) -> Cells:
        left, right = (part(rows) for part in parts)
        return Cells(left.values, left.missing | equal(left, right))

    return of


def _extreme(sign: str) -> Maker:
    def make(node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
        beats = _comparison(sign, node.of)

        def of(rows: Selection) -> Cells:
            found = Cells.nothing(len(rows), node.kind)
            for part in parts:
                cells = part(rows)
                better = beats(cells, found) | (found.missing & ~cells.missing)
                places = better.nonzero()[0]
                found.put(places, cells.take(places))
            return found

        return of

    return make


def _case(node: Typed, parts: Sequence[ColumnFunction]) -> ColumnFunction:
    *pairs, default = parts
    branches = tuple(zip(pairs[::2], pairs[1::2], strict=True))

    def of(rows: Selection) -> Cells:
        found = Cells.nothing(len(rows), node.kind)
        left = np.ones(len(rows), np.bool_)
        for when, then in branches:
            places, others = rows.chosen(left)
            holds = when(others).truths
            taken, these = others.chosen(holds)
            found.put(places[taken], then(these))
            left[places[taken]] = False
        places, others = rows.chosen(left)
        found.put(places, default(others))
        return found

    return of


OF_COLUMNS: Mapping[str, Maker] = {
    "constant": _constant,
    "column": _column,
    "as": _as,
    "is null": _is_null,
    "/": _divided,
    "ln": _logarithm,
    "and": _and,
    "or": _or,
    "not": lambda _node, parts: _strict(np.logical_not, parts),
    "in": _member,
    "coalesce": _coalesce,
    "nullif": _nullif,
    "least": _extreme("<"),
    "greatest": _extreme(">"),
    "case": _case,
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(COMPARISONS, _compared),
}
