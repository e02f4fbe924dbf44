"""Features with labels as named arrays: what training and evaluation read."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class LabelledFrame:
    """Rows ordered by as_of and row key.

    `columns` holds numbers as float32 `(n_rows,)` (NaN: missing) and texts as object arrays (None:
    missing), protected attributes declared as inputs included; `protected` every protected
    attribute; `label` is int8.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    protected: Mapping[str, npt.NDArray[Any]]
    entity: npt.NDArray[Any]
    as_of: npt.NDArray[np.datetime64]
    known_at: npt.NDArray[np.datetime64]
    label: npt.NDArray[np.int8]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.label)

    @property
    def everything(self) -> Mapping[str, npt.NDArray[Any]]:
        """Inputs and protected attributes together: what a decision may be made from."""
        return {**self.protected, **self.columns}

    def take(self, rows: npt.NDArray[Any]) -> "LabelledFrame":
        """Return the given rows (positions or a mask)."""
        return LabelledFrame(
            columns={name: values[rows] for name, values in self.columns.items()},
            protected={name: values[rows] for name, values in self.protected.items()},
            entity=self.entity[rows],
            as_of=self.as_of[rows],
            known_at=self.known_at[rows],
            label=self.label[rows],
        )

    def groups(self, column: str) -> list[tuple[str, npt.NDArray[np.bool_]]]:
        """Return the groups of a column and their rows: its texts, or quartiles of its numbers.

        Missing values are a group of their own; a column that is not there has none.
        """
        values = self.protected.get(column, self.columns.get(column))
        if values is None:
            return []
        if values.dtype == object:
            names = sorted({str(value) for value in values if value is not None})
            groups = [(name, np.asarray(values == name, dtype=bool)) for name in names]
            missing = np.asarray([value is None for value in values])
        else:
            edges = np.unique(np.nanquantile(values, QUARTILES)) if len(values) else np.empty(0)
            groups = [
                (f"({low:g}, {high:g}]", (values > low) & (values <= high))
                for low, high in pairwise([-np.inf, *edges, np.inf])
            ]
            missing = np.isnan(values)
        return [*groups, ("(missing)", missing)] if missing.any() else groups
