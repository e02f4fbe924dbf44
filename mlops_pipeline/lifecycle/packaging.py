"""What is stored of a model for those who do not have this project.

Its script, packages and framework, and its input example: made-up rows that nobody is.
"""

from collections import Counter
from collections.abc import Collection
from importlib.metadata import packages_distributions
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np

from mlops_pipeline.core.modelling import scorers, scoring
from mlops_pipeline.core.modelling.fitting import kind_of
from mlops_pipeline.core.modelling.scoring import Columns, ScoringModel
from mlops_pipeline.stores.models.contract import model_script
from mlops_pipeline.stores.models.mlflow import Package

QUANTILES = (0.1, 0.35, 0.65, 0.9)  # that the example takes of each number
EXAMPLE_ROWS = 10_000  # that they are taken of


def packaged(model: ScoringModel) -> Package:
    """Return what plain MLflow needs to score a model."""
    names = ("mlflow", "numpy", "pandas", *kind_of(model.kind).REQUIREMENTS)
    sources = (scoring, *scorers.modules_of(model.kind))
    return Package(
        files=model.files,
        script=model_script([Path(str(module.__file__)) for module in sources]),
        inputs=column_types(model),
        requirements=[f"{name}=={version}" for name, version in map(_installed, names)],
    )


def framework(model: ScoringModel) -> dict[str, str]:
    """Return name and version of what fitted a model."""
    name, version = _installed(kind_of(model.kind).FRAMEWORK)
    return {"name": name, "version": version}


def _installed(package: str) -> tuple[str, str]:
    """Return the distribution that a package is of: `sklearn` is scikit-learn's."""
    names = packages_distributions()[package]
    name = package if package in names else names[0]
    return name, installed_version(name)


def column_types(model: ScoringModel) -> dict[str, str]:
    """Return the columns that a model is given, inputs and attributes, with their types."""
    inputs = {item["name"]: item["type"] for item in model.document["inputs"]}
    return {**dict.fromkeys(model.attributes, "category"), **inputs}


def input_example(
    model: ScoringModel, columns: Columns, hidden: Collection[str] = ()
) -> dict[str, Any]:
    """Return made-up rows as plain JSON: nobody's, null in the last row and in `hidden` inputs."""
    types, rows = column_types(model), len(QUANTILES)
    values: dict[str, list[Any]] = {
        name: [None] * rows if name in hidden else _typical(columns[name])
        for name in types
        if name not in model.attributes
    }
    known = model.document.get("thresholds", {}).get("groups", [])
    groups = [each for group in known for each in group]
    for position, name in enumerate(model.attributes):
        values[name] = [groups[row % len(groups)][position] for row in range(rows)]
    data = [list(row) for row in zip(*(values[name] for name in types), strict=True)]
    return {"columns": list(types), "types": types, "data": [*data, [None] * len(types)]}


def _typical(values: Any) -> list[Any]:
    """Return one value of a column for each quantile."""
    drawn = values[:: max(1, len(values) // EXAMPLE_ROWS)]
    if drawn.dtype == object:
        common = [text for text, _ in Counter(drawn).most_common() if text is not None]
        return (common * len(QUANTILES) or [None] * len(QUANTILES))[: len(QUANTILES)]
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return [None] * len(QUANTILES)
    return [float(np.float32(value)) for value in np.quantile(known, QUANTILES)]


def example_columns(example: dict[str, Any]) -> Columns:
    """Return an input example as columns for ScoringModel."""
    columns = {}
    for index, name in enumerate(example["columns"]):
        values = [row[index] for row in example["data"]]
        if example["types"][name] == "category":
            columns[name] = np.asarray(values, dtype=object)
        else:
            numbers = [np.nan if value is None else value for value in values]
            columns[name] = np.asarray(numbers, dtype=np.float32)
    return columns
