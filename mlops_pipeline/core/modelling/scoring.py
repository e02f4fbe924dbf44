"""Scoring a stored model with numpy, json and LightGBM only, from text and JSON, never pickle.

This file stands alone on purpose: its text is stored beside every model, so that plain MLflow
scores a model with nothing of this project installed. It must not import from the project.
"""

import json
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MODEL_JSON = "model.json"
MODEL_TEXT = "model.txt"
STANDARD_SCORE_LIMIT = 6.0  # standardised inputs beyond it say nothing more to a linear model
PROBABILITY_FLOOR = 1e-6  # keeps log loss finite where isotonic calibration says 0 or 1

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]


class Decisions(NamedTuple):
    """What a model says of each row; `decision` is probability >= threshold."""

    probability: Floats
    threshold: Floats
    decision: Flags
    needs_review: Flags

    def take(self, rows: npt.NDArray[Any]) -> "Decisions":
        """Return the given rows (positions or a mask)."""
        return Decisions(
            self.probability[rows],
            self.threshold[rows],
            self.decision[rows],
            self.needs_review[rows],
        )


class ScoringModel:
    """A fitted, calibrated binary classifier.

    Parameters
    ----------
    document : dict
        kind, inputs, parameters, calibration, threshold and, where thresholds differ between
        rows, how (`thresholds`); `review_band` where a person decides near it: model.json.
    booster_text : str or None
        LightGBM's text format; None for logistic regression and the dummy.
    """

    def __init__(self, document: dict[str, Any], booster_text: str | None) -> None:
        self.document = document
        self.booster_text = booster_text
        self._booster: Any = None

    @classmethod
    def read(cls, folder: Path) -> "ScoringModel":
        """Read model.json and, when there is one, model.txt."""
        text = folder / MODEL_TEXT
        document = json.loads((folder / MODEL_JSON).read_text(encoding="utf-8"))
        return cls(document, text.read_text(encoding="utf-8") if text.is_file() else None)

    def write(self, folder: Path) -> None:
        """Write model.json and, when there is one, model.txt; same model, same bytes."""
        (folder / MODEL_JSON).write_text(self.to_json(), encoding="utf-8")
        if self.booster_text is not None:
            (folder / MODEL_TEXT).write_text(self.booster_text, encoding="utf-8")

    def to_json(self) -> str:
        """Return the canonical JSON text of the document."""
        return json.dumps(self.document, sort_keys=True, indent=1, allow_nan=False) + "\n"

    @property
    def kind(self) -> str:
        """Return lightgbm, random_forest, logistic or dummy."""
        return str(self.document["kind"])

    @property
    def threshold(self) -> float:
        """Probability from which the decision is positive, where nothing else is said of a row."""
        return float(self.document["threshold"])

    @property
    def attributes(self) -> tuple[str, ...]:
        """Protected attributes that a decision needs beside the inputs; usually none."""
        return tuple(self.document.get("thresholds", {}).get("attributes", ()))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs in the order of the matrix."""
        return tuple(item["name"] for item in self.document["inputs"])

    @property
    def booster(self) -> Any:
        """The LightGBM booster (loaded once)."""
        if self._booster is None:
            import lightgbm

            self._booster = lightgbm.Booster(model_str=self.booster_text)
        return self._booster

    def encode(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return the float32 matrix `(n_rows, n_inputs)`; missing and unseen values are NaN."""
        return encode(self.document["inputs"], columns)

    def predict(self, columns: Columns) -> Floats:
        """Return the calibrated probability of the positive class `(n_rows,)`."""
        return self.predict_matrix(self.encode(columns))

    def decide(self, columns: Columns) -> Decisions:
        """Return probability, threshold, decision and whether a person has to look, row by row.

        This is the one place where a score becomes a decision. `columns` holds the inputs and
        the `attributes`; a row without a known group gets the default threshold.
        """
        matrix = self.encode(columns)
        probability = self.predict_matrix(matrix)
        threshold = row_thresholds(self.document, columns, matrix)
        band = float(self.document.get("review_band", 0.0))
        near = (np.abs(probability - threshold) <= band / 2) & (band > 0)
        return Decisions(probability, threshold, probability >= threshold, near)

    def predict_matrix(self, matrix: npt.NDArray[np.float32]) -> Floats:
        """Return calibrated probabilities for an encoded matrix."""
        return apply_calibration(self.document["calibration"], self.raw_scores(matrix))

    def raw_scores(self, matrix: npt.NDArray[np.float32]) -> Floats:
        """Return probabilities before calibration."""
        if self.kind == "dummy":
            return np.full(len(matrix), float(self.document["base_rate"]), dtype=np.float64)
        if self.kind == "logistic":
            return sigmoid(self._linear_scores(matrix))
        if len(matrix) == 0:
            return np.empty(0)
        return np.asarray(self.booster.predict(matrix), dtype=np.float64)

    def log_odds(self, matrix: npt.NDArray[np.float32]) -> Floats:
        """Return the log-odds of the scores before calibration."""
        if self.kind == "dummy":
            return logit(self.raw_scores(matrix))
        if self.kind == "logistic":
            return self._linear_scores(matrix)
        if len(matrix) == 0:
            return np.empty(0)
        found = np.asarray(self.booster.predict(matrix, raw_score=True), dtype=np.float64)
        # LightGBM's raw score of a forest is the sum of its trees, its probability their mean's
        return found / self.booster.num_trees() if self.kind == "random_forest" else found

    def _linear_scores(self, matrix: npt.NDArray[np.float32]) -> Floats:
        # term by term: the same bits on any number of threads, and no matrix of terms in memory
        scores: Floats = np.full(len(matrix), float(self.document["intercept"]), dtype=np.float64)
        for term, weight in zip(self.document["terms"], self.document["coefficients"], strict=True):
            scores += weight * linear_term(term, matrix)
        return scores


def encode(
    inputs: list[dict[str, Any]],
    columns: Columns,
    rows: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.float32]:
    """Encode named columns as a column-major float32 matrix; categories become their position.

    With `rows`, only those are encoded, column by column: no second copy of the data.
    """
    count = len(columns[inputs[0]["name"]]) if rows is None else len(rows)
    matrix = np.empty((count, len(inputs)), dtype=np.float32, order="F")
    for index, item in enumerate(inputs):
        values = columns[item["name"]]
        if rows is not None:
            values = values[rows]
        if item["type"] == "category":
            positions = {text: float(code) for code, text in enumerate(item["categories"])}
            found = map(positions.get, values, repeat(np.nan))
            matrix[:, index] = np.fromiter(found, dtype=np.float32, count=count)
        else:
            matrix[:, index] = values
    return matrix


def row_thresholds(
    document: Mapping[str, Any], columns: Columns, matrix: npt.NDArray[np.float32]
) -> Floats:
    """Return the threshold of each row: one for all, by its group, or by its estimated group.

    `by_group` looks the row's attributes up; `by_estimated_group` is blind to them: the mean of
    the groups' thresholds, weighted by the probability of each group given the inputs.
    """
    default = np.full(len(matrix), float(document["threshold"]), dtype=np.float64)
    rule = document.get("thresholds")
    if rule is None:
        return default
    if rule["kind"] == "by_group":
        found = {
            tuple(values): float(limit)
            for group, limit in zip(rule["groups"], rule["limits"], strict=True)
            for values in group
        }
        rows = zip(*(columns[name] for name in rule["attributes"]), strict=True)
        limits = (found.get(row, start) for row, start in zip(rows, default, strict=True))
        return np.fromiter(limits, dtype=np.float64, count=len(matrix))
    shares = group_shares(rule, matrix)
    limits_of_rows: Floats = np.zeros(len(matrix), dtype=np.float64)
    for share, limit in zip(shares, rule["limits"], strict=True):
        limits_of_rows += share * float(limit)
    return limits_of_rows


def group_shares(rule: Mapping[str, Any], matrix: npt.NDArray[np.float32]) -> Floats:
    """Return the probability of each group given the inputs `(n_groups, n_rows)`: softmax."""
    scores = np.repeat(np.asarray(rule["intercepts"], dtype=np.float64)[:, None], len(matrix), 1)
    for term, weights in zip(rule["terms"], rule["coefficients"], strict=True):
        values = linear_term(term, matrix)
        for group, weight in enumerate(weights):
            scores[group] += weight * values
    scores = np.exp(scores - scores.max(axis=0))
    shares: Floats = scores / scores.sum(axis=0)
    return shares


def linear_term(term: Mapping[str, Any], matrix: npt.NDArray[np.float32]) -> Floats:
    """Return one term of a linear model `(n_rows,)`: a standardised number, a flag, a category."""
    values = matrix[:, term["input"]].astype(np.float64)
    if term["kind"] == "missing":
        return np.asarray(np.isnan(values), dtype=np.float64)
    if term["kind"] == "category":
        return np.asarray(values == term["code"], dtype=np.float64)
    if term["log"]:
        values = np.asarray(np.sign(values) * np.log1p(np.abs(values)), dtype=np.float64)
    scores = (values - term["mean"]) / term["scale"]
    np.clip(scores, -STANDARD_SCORE_LIMIT, STANDARD_SCORE_LIMIT, out=scores)
    return np.asarray(np.nan_to_num(scores, nan=0.0), dtype=np.float64)


def apply_calibration(calibration: Mapping[str, Any], scores: Floats) -> Floats:
    """Map raw scores to calibrated probabilities: isotonic knots, Platt's sigmoid, or nothing."""
    if calibration["kind"] == "isotonic":
        values = np.interp(scores, calibration["x"], calibration["y"])
        return np.asarray(np.clip(values, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR))
    if calibration["kind"] == "sigmoid":
        return sigmoid(-(calibration["a"] * logit(scores) + calibration["b"]))
    return np.asarray(scores, dtype=np.float64)


def logit(scores: Floats) -> Floats:
    """Return ln(p / (1 - p)) of scores bounded away from 0 and 1."""
    bounded = np.clip(scores, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    result: Floats = np.log(bounded) - np.log1p(-bounded)
    return result


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) without overflow."""
    result: Floats = np.exp(-np.logaddexp(0.0, -np.asarray(values, dtype=np.float64)))
    return result
