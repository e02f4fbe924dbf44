"""The inputs of a model: what is learned of them from the training part, and rows as a matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.features import Direction
from mlops_pipeline.core.modelling.scoring import encode
from mlops_pipeline.errors import DataError

MAX_CATEGORIES = 1_000  # more distinct texts are an identifier, not a category

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """The model inputs as learned from the training part, and what was left out.

    `directions` are the declared ones, which candidates with `monotone: true` keep to.
    """

    items: tuple[Mapping[str, Any], ...]
    dropped: Mapping[str, str] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)


def learn_inputs(
    columns: Mapping[str, npt.NDArray[Any]],
    names: Sequence[str],
    rows: npt.NDArray[np.int64],
    directions: Mapping[str, Direction] | None = None,
) -> Inputs:
    """Learn categories from the training rows; leave out inputs that say nothing.

    Raises
    ------
    DataError
        When a text input has more than 1,000 distinct values, or nothing varies at all.
    """
    items: list[Mapping[str, Any]] = []
    dropped: dict[str, str] = {}
    for name in names:
        values = columns[name][rows]
        if values.dtype == object:
            texts = sorted({value for value in values if value is not None})
            if len(texts) > MAX_CATEGORIES:
                raise DataError(
                    "a text feature has too many distinct values",
                    where=f"feature {name}",
                    expected=f"at most {MAX_CATEGORIES:,}",
                    found=f"{len(texts):,}",
                    way_out="group the values with a case expression, count them, or leave it out",
                )
            if len(texts) + (None in values) < 2:
                dropped[name] = "all missing" if not texts else "constant"
                continue
            items.append({"name": name, "type": "category", "categories": texts})
        else:
            present = values[~np.isnan(values)]
            if len(present) == 0 or (len(present) == len(values) and np.ptp(present) == 0):
                dropped[name] = "all missing" if len(present) == 0 else "constant"
                continue
            items.append({"name": name, "type": "number"})
    if not items:
        raise DataError(
            "no feature varies in the training part",
            found=", ".join(f"{name}: {reason}" for name, reason in dropped.items()),
        )
    return Inputs(tuple(items), dropped, directions or {})


def encode_rows(
    inputs: Inputs, columns: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.int64]
) -> Matrix:
    """Encode the given rows as a float32 matrix `(len(rows), n_inputs)`."""
    return encode([dict(item) for item in inputs.items], columns, rows)
