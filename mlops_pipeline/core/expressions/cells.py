"""Columns of scalar values: a NumPy array and which of its places are missing.

Belongs here: columns from rows and back, and their declared types. One value at a time is
values.py; what operators make of columns is column_operators.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.core.expressions.values import BELOW_HALF, Kind, Value

Places = NDArray[np.intp]
Mask = NDArray[np.bool_]
_EMPTY: dict[Kind, tuple[Any, Any]] = {  # dtype, and what stands where a value is missing
    "float64": (np.float64, 0.0),
    "int64": (np.int64, 0),
    "boolean": (np.bool_, False),
}
_OBJECT = (np.object_, None)  # text and times stay Python's, which compare as DuckDB's do


@dataclass(frozen=True)
class Cells:
    """A column of one type.

    Attributes
    ----------
    values : array, shape (n_rows,)
        Where a value is missing, anything of the type.
    missing : array of bool, shape (n_rows,)
    """

    values: NDArray[Any]
    missing: Mask

    @classmethod
    def of(cls, items: Sequence[Value], kind: Kind) -> "Cells":
        """Make a column of Python values, missing is None."""
        dtype, filler = _EMPTY.get(kind, _OBJECT)
        if kind == "float64":
            values = np.array(items, dtype)  # None becomes NaN
            missing = np.isnan(values)
            for place in missing.nonzero()[0].tolist():
                missing[place] = items[place] is None
            return cls(values, missing)
        missing = np.array([item is None for item in items], np.bool_)
        if missing.any():
            items = [filler if item is None else item for item in items]
        return cls(np.array(items, dtype), missing)

    @classmethod
    def nothing(cls, rows: int, kind: Kind) -> "Cells":
        """Make a column without any value."""
        dtype, filler = _EMPTY.get(kind, _OBJECT)
        return cls(np.full(rows, filler, dtype), np.ones(rows, np.bool_))

    def tolist(self) -> list[Value]:
        """Return the values as Python has them, None where missing."""
        values: list[Value] = self.values.tolist()
        if not self.missing.any():
            return values
        for place in self.missing.nonzero()[0].tolist():
            values[place] = None
        return values

    def take(self, places: Places) -> "Cells":
        """Return the values at these places."""
        return Cells(self.values[places], self.missing[places])

    def put(self, places: Places, cells: "Cells") -> None:
        """Write values of the same type at these places, in place."""
        self.values[places], self.missing[places] = cells.values, cells.missing

    @property
    def truths(self) -> Mask:
        """Where the value is true, and not missing."""
        found: Mask = self.values & ~self.missing
        return found

    def mapped(self, function: Callable[[Any], Value], kind: Kind) -> "Cells":
        """Apply a function of one value to those that are there."""
        found = Cells.nothing(len(self.values), kind)
        places = (~self.missing).nonzero()[0]
        found.put(places, Cells.of([*map(function, self.values[places].tolist())], kind))
        return found


class Batch:
    """Rows whose columns are made when they are asked for.

    Parameters
    ----------
    rows : sequence of rows
        Values in the order of `kinds`, or more.
    kinds : sequence of Kind
        The types of the columns.
    """

    def __init__(self, rows: Sequence[Sequence[Value]], kinds: Sequence[Kind]) -> None:
        self._rows, self._kinds = rows, kinds
        self._cells: dict[int, Cells] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def cells(self, place: int) -> Cells:
        """Return the column at a place."""
        found = self._cells.get(place)
        if found is None:
            items = [row[place] for row in self._rows]
            found = self._cells[place] = Cells.of(items, self._kinds[place])
        return found

    def put(self, place: int, cells: Cells) -> None:
        """Give a column that the rows do not have."""
        self._cells[place] = cells


@dataclass(frozen=True)
class Selection:
    """Some rows of a batch, or all: what a lazy operator computes its operand of."""

    batch: Batch
    places: Places | None = None

    def __len__(self) -> int:
        return len(self.batch) if self.places is None else len(self.places)

    def cells(self, place: int) -> Cells:
        """Return a column of these rows."""
        cells = self.batch.cells(place)
        return cells if self.places is None else cells.take(self.places)

    def chosen(self, mask: Mask) -> tuple[Places, "Selection"]:
        """Return the places of the chosen rows among these, and their selection."""
        places = mask.nonzero()[0]
        return places, Selection(self.batch, places if self.places is None else self.places[places])


def cells_converter(
    kind: Kind, dtype: Kind, precision: int, convert: Callable[[Any], Value]
) -> Callable[[Cells], Cells]:
    """Return the function that makes a column its declared type.

    Parameters
    ----------
    convert : callable
        What values.converter returned for them: the same of one value.
    """
    if kind == dtype and dtype != "float64":
        return lambda cells: cells
    if kind == "null":
        return lambda cells: Cells.nothing(len(cells.values), dtype)
    if dtype == "float64" and precision:
        modifier = 10.0**precision
        return lambda cells: _rounded(cells, modifier)
    return lambda cells: cells.mapped(convert, dtype)


def _rounded(cells: Cells, modifier: float) -> Cells:
    """Round as values.round_half_away does; what is not finite becomes missing."""
    values = cells.values.astype(np.float64)
    rounded = np.floor(np.abs(values) * modifier + BELOW_HALF) / modifier
    rounded = np.where(np.isfinite(rounded), np.copysign(rounded, values), values)
    return Cells(rounded, cells.missing | ~np.isfinite(rounded))
