"""One row's decision, prepared once: a mapping of features in, probability and decision out.

Same bits as ScoringModel.decide, which scores many rows; a property test holds them equal for every
kind. Not to be shared between threads: each makes its own of the same model.
"""

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mlops_pipeline.core.modelling import scoring
from mlops_pipeline.errors import DataError

Calibrate = Callable[[float], float]


class Decision(NamedTuple):
    """What a model says of one row; `decision` is probability >= threshold."""

    probability: float
    decision: bool
    threshold: float
    needs_review: bool


class RowScorer:
    """Scores mappings of features one by one.

    A value is a number, a truth value or a text; None and NaN are missing, and a text that the
    model does not know is too. `features` also holds the attributes that thresholds go by.

    Raises
    ------
    DataError
        When a feature is not there, or its value is of another type.
    """

    def __init__(self, model: scoring.ScoringModel) -> None:
        inputs = model.document["inputs"]
        self.names = model.input_names
        self._categories = [
            (index, {text: float(code) for code, text in enumerate(item["categories"])})
            for index, item in enumerate(inputs)
            if item["type"] == "category"
        ]
        self._row: scoring.Matrix = np.empty((1, len(inputs)), dtype=np.float32)
        self._pack = struct.Struct(f"{len(inputs)}f").pack_into
        self._bytes = self._row.data.cast("B")
        self._score = model.scorer.row(self._row)
        self._calibrate = _calibration(model.document["calibration"])
        self._threshold = _thresholds(model, self._row)
        self._half_band = float(model.document.get("review_band", 0.0)) / 2

    def __call__(self, features: Mapping[str, Any]) -> Decision:
        """Return what the model says of one row."""
        try:
            values = [
                math.nan if (value := features[name]) is None else value for name in self.names
            ]
            for index, codes in self._categories:
                values[index] = codes.get(values[index], math.nan)
            try:
                self._pack(self._bytes, 0, *values)
            except OverflowError:  # beyond float32: infinite, as in a matrix
                self._row[0] = values
            threshold = self._threshold(features)
        except (KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
            raise self._wrong(features) from error
        probability = self._calibrate(self._score())
        near = self._half_band > 0 and abs(probability - threshold) <= self._half_band
        return Decision(probability, probability >= threshold, threshold, near)

    def _wrong(self, features: Mapping[str, Any]) -> DataError:
        missing = [name for name in self.names if name not in features]
        if missing:
            return DataError("features of the model are missing", found=", ".join(missing[:8]))
        found = {name: type(features[name]).__name__ for name in self.names}
        return DataError(
            "a feature, or an attribute that decides, is not there or of another type",
            expected="numbers, and texts for categories",
            found=", ".join(f"{name}: {kind}" for name, kind in found.items()),
        )


def _calibration(calibration: Mapping[str, Any]) -> Calibrate:
    if calibration["kind"] == "none":
        return lambda score: score
    floor, ceiling = scoring.PROBABILITY_FLOOR, 1 - scoring.PROBABILITY_FLOOR
    if calibration["kind"] == "isotonic":
        x, y = (np.asarray(calibration[name], dtype=np.float64) for name in ("x", "y"))
        return lambda score: min(max(float(np.interp(score, x, y)), floor), ceiling)
    a, b = float(calibration["a"]), float(calibration["b"])

    def platt(score: float) -> float:
        bounded = min(max(score, floor), ceiling)
        log_odds = np.log(bounded) - np.log1p(-bounded)
        return float(np.exp(-np.logaddexp(0.0, a * log_odds + b)))

    return platt


def _thresholds(
    model: scoring.ScoringModel, row: scoring.Matrix
) -> Callable[[Mapping[str, Any]], float]:
    default, rule = model.threshold, model.document.get("thresholds")
    if rule is None:
        return lambda _: default
    if rule["kind"] == "by_estimated_group":
        return lambda _: float(scoring.row_thresholds(model.document, {}, row)[0])
    limits, names = scoring.group_limits(rule), rule["attributes"]
    return lambda features: limits.get(tuple([features[name] for name in names]), default)
