"""The input example of a model, made-up rows that nobody is, and the columns it is given."""

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.core.modelling.scoring import ScoringModel

QUANTILES = (0.1, 0.35, 0.65, 0.9)  # that the example takes of each number
EXAMPLE_ROWS = 10_000  # that they are taken of


def column_types(model: ScoringModel) -> dict[str, str]:
    """Return the columns that a model is given, inputs and attributes, with their types."""
    inputs = {item["name"]: item["type"] for item in model.document["inputs"]}
    return {**dict.fromkeys(model.attributes, "category"), **inputs}


def input_example(
    model: ScoringModel, columns: Any, hidden: Collection[str] = ()
) -> dict[str, Any]:
    """Return made-up rows as plain JSON: columns, data, types; missing values are null.

    No row is anybody's: each input goes through quantiles of its numbers, or its commonest texts,
    by itself, and is missing in the last row; a protected attribute that decisions need goes
    through the groups that the model knows. Inputs in `hidden` are missing in every row.
    """
    types, rows = column_types(model), len(QUANTILES)
    values: dict[str, list[Any]] = {
        name: [None] * rows if name in hidden else _typical(columns[name])
        for name in types
        if name not in model.attributes
    }
    groups = [each for group in _groups(model) for each in group]
    for position, name in enumerate(model.attributes):
        values[name] = [groups[row % len(groups)][position] for row in range(rows)]
    data = [list(row) for row in zip(*(values[name] for name in types), strict=True)]
    return {"columns": list(types), "types": types, "data": [*data, [None] * len(types)]}


def _groups(model: ScoringModel) -> list[list[list[str]]]:
    found: list[list[list[str]]] = model.document.get("thresholds", {}).get("groups", [])
    return found


def _typical(values: npt.NDArray[Any]) -> list[Any]:
    """Return one value of a column for each quantile."""
    drawn = values[:: max(1, len(values) // EXAMPLE_ROWS)]
    if drawn.dtype == object:
        common = [text for text, _ in Counter(drawn).most_common() if text is not None]
        return (common * len(QUANTILES) or [None] * len(QUANTILES))[: len(QUANTILES)]
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return [None] * len(QUANTILES)
    return [float(np.float32(value)) for value in np.quantile(known, QUANTILES)]


def example_columns(example: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Return an input example as columns for ScoringModel."""
    columns = {}
    for index, name in enumerate(example["columns"]):
        values = [row[index] for row in example["data"]]
        if example["types"][name] == "category":
            columns[name] = np.asarray(values, dtype=object)
        else:
            columns[name] = np.asarray(
                [np.nan if value is None else value for value in values], dtype=np.float32
            )
    return columns
