"""Features with labels as named arrays: what training and evaluation read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


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
