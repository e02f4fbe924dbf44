"""Scoring a stored model from text and JSON, never pickle: encoding, calibration, decision.

Stands alone on purpose: this text, the scorer of the model's kind (scorers/) and a few lines for
MLflow are stored with every model, so that plain MLflow scores it with nothing of this project
installed. Of the project only `load` is imported; in the stored script the scorer's own takes its
place. Files are read and written in stores/models.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlops_pipeline.core.modelling.scorers import load

MODEL_JSON = "model.json"
STANDARD_SCORE_LIMIT = 6.0  # standardised inputs beyond it say nothing more to a linear model
PROBABILITY_FLOOR = 1e-6  # keeps log loss finite where isotonic calibration says 0 or 1

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float32]
Columns = Mapping[str, npt.NDArray[Any]]


class Decisions(NamedTuple):
    """What a model says of each row; `decision` is probability >= threshold."""

    probability: Floats
    threshold: Floats
    decision: Flags
    needs_review: Flags

    def take(self, rows: npt.NDArray[Any]) -> "Decisions":
        """Return the given rows (positions or a mask)."""
        return Decisions(*(values[rows] for values in self))


class ScoringModel:
    """A fitted, calibrated binary classifier.

    Parameters
    ----------
    document : dict
        kind, inputs, parameters, calibration, threshold and, where thresholds differ between
        rows, how (`thresholds`); `review_band` where a person decides near it: model.json.
    texts : mapping, optional
        What its other files hold, by name: the text of a library's own format.
    """

    def __init__(self, document: dict[str, Any], texts: Mapping[str, str] | None = None) -> None:
        self.document = document
        self.texts = dict(texts or {})

    @classmethod
    def of_files(cls, files: Mapping[str, str]) -> "ScoringModel":
        """Return the model whose files, by name, hold these texts."""
        texts = {name: text for name, text in files.items() if name != MODEL_JSON}
        return cls(json.loads(files[MODEL_JSON]), texts)

    @property
    def files(self) -> dict[str, str]:
        """What its files hold, by name; same model, same bytes."""
        text = json.dumps(self.document, sort_keys=True, indent=1, allow_nan=False) + "\n"
        return {MODEL_JSON: text, **self.texts}

    def revised(self, **changes: Any) -> "ScoringModel":
        """Return the same fit with other calibration, thresholds, ..."""
        return ScoringModel({**self.document, **changes}, self.texts)

    @cached_property
    def scorer(self) -> Any:
        """What scores encoded rows, before calibration: the same bits for one row and for many.

        `scores(matrix)` and `log_odds(matrix)` return `(n_rows,)`; `row(buffer)` a function that
        scores what lies in a buffer of one row `(1, n_inputs)`.
        """
        return load(self.document, self.texts)

    @property
    def kind(self) -> str:
        """lightgbm, logistic, ..."""
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

    def encode(self, columns: Columns) -> Matrix:
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

    def predict_matrix(self, matrix: Matrix) -> Floats:
        """Return calibrated probabilities for an encoded matrix."""
        return apply_calibration(self.document["calibration"], self.raw_scores(matrix))

    def raw_scores(self, matrix: Matrix) -> Floats:
        """Return probabilities before calibration."""
        return np.asarray(self.scorer.scores(matrix))

    def log_odds(self, matrix: Matrix) -> Floats:
        """Return the log-odds of the scores before calibration."""
        return np.asarray(self.scorer.log_odds(matrix))


def encode(
    inputs: Sequence[Mapping[str, Any]], columns: Columns, rows: npt.NDArray[Any] | None = None
) -> Matrix:
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


def row_thresholds(document: Mapping[str, Any], columns: Columns, matrix: Matrix) -> Floats:
    """Return the threshold of each row: one for all, by its group, or by its estimated group.

    `by_group` looks the row's attributes up; `by_estimated_group` is blind to them: the mean of
    the groups' thresholds, weighted by the probability of each group given the inputs.
    """
    default, rule = float(document["threshold"]), document.get("thresholds")
    if rule is None:
        return np.full(len(matrix), default)
    if rule["kind"] == "by_group":
        found = group_limits(rule)
        rows = zip(*(columns[name] for name in rule["attributes"]), strict=True)
        limits = (found.get(row, default) for row in rows)
        return np.fromiter(limits, dtype=np.float64, count=len(matrix))
    thresholds: Floats = np.zeros(len(matrix))
    for share, limit in zip(group_shares(rule, matrix), rule["limits"], strict=True):
        thresholds += share * float(limit)
    return thresholds


def group_limits(rule: Mapping[str, Any]) -> dict[tuple[Any, ...], float]:
    """Return the threshold of each combination of attributes, of a rule `by_group`."""
    return {
        tuple(values): float(limit)
        for group, limit in zip(rule["groups"], rule["limits"], strict=True)
        for values in group
    }


def group_shares(rule: Mapping[str, Any], matrix: Matrix) -> Floats:
    """Return the probability of each group given the inputs `(n_groups, n_rows)`: softmax."""
    scores = np.repeat(np.asarray(rule["intercepts"], dtype=np.float64)[:, None], len(matrix), 1)
    for term, weights in zip(rule["terms"], rule["coefficients"], strict=True):
        values = linear_term(term, matrix)
        for group, weight in enumerate(weights):
            scores[group] += weight * values
    scores = np.exp(scores - scores.max(axis=0))
    total = np.zeros(len(matrix))
    for score in scores:  # in order: NumPy sums one row's groups otherwise than many rows'
        total += score
    return np.asarray(scores / total)


def linear_term(term: Mapping[str, Any], matrix: Matrix) -> Floats:
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
    return np.asarray(np.log(bounded) - np.log1p(-bounded))


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(values, dtype=np.float64))))
