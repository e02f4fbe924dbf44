"""Benchmark: one row from a mapping of features to a decision, beside LightGBM's own calls.

200 trees of 31 leaves on 45 columns, 8 of them categories, isotonic calibration and a threshold.
Bare: LightGBM's single-row-fast call on a buffer that is filled already. Booster: `Booster.predict`
of its package on a ready matrix of one row, on one thread (more are slower). All score the same
rows in turn; processor time, so that other work on the machine counts less.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.result import Result, Row
from mlops_pipeline.core.modelling.calibration import fit_calibration
from mlops_pipeline.core.modelling.fitting import Fitting, Rows, encode_rows, learn_inputs
from mlops_pipeline.core.modelling.row_scorer import RowScorer
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.spec.kinds import LightGBM

ROWS, NUMBERS, CATEGORIES = 20_000, 37, 8
SCORED = 200  # rows, in turn
REPEATS, CALLS = 5, 4_000
MOST_OF_BARE, MOST_OF_BOOSTER = 2.5, 0.5


def main() -> None:
    """Print the medians and both ratios."""
    import lightgbm

    columns, label = made_columns()
    model = made_model(columns, label)
    matrix = np.ascontiguousarray(model.encode(columns)[:SCORED])
    rows = [_plain(columns, index) for index in range(SCORED)]
    scorer = RowScorer(model)
    bare = [model.scorer.row(matrix[index : index + 1]) for index in range(SCORED)]
    booster = lightgbm.Booster(model_str=model.texts["model.txt"])
    ready = [matrix[index : index + 1] for index in range(SCORED)]
    ways: dict[str, tuple[Callable[[int], Any], int]] = {
        "mapping to decision": (lambda index: scorer(rows[index]), CALLS),
        "bare single-row-fast call": (lambda index: bare[index](), CALLS),
        "Booster.predict": (lambda index: booster.predict(ready[index], num_threads=1), CALLS // 4),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, (call, count) in ways.items():
            found[name].append((_us(call, count, SCORED), _us(call, count, 1)))
    tables = [_row(name, times) for name, times in found.items()]
    in_turn, again = (
        [statistics.median(time[which] for time in times) for times in found.values()]
        for which in (0, 1)
    )
    Result(
        name="score_row",
        what="mapping of features to decision / bare single-row-fast call on a filled buffer, and "
        f"/ Booster.predict on a ready matrix (median of {REPEATS}, processor time)",
        figure=f"{in_turn[0] / in_turn[1]:.2f} of the bare call ({again[0] / again[1]:.2f} with "
        f"one row again and again), {in_turn[0] / in_turn[2]:.2f} of Booster.predict",
        target=f"at most {MOST_OF_BARE} and at most {MOST_OF_BOOSTER}",
        tables={"": tables},
    ).print()


def _row(name: str, times: list[tuple[float, float]]) -> Row:
    turns, same = (statistics.median(values) for values in zip(*times, strict=True))
    return {
        "way": name,
        f"us, {SCORED} rows in turn": round(turns, 1),
        "us, one row again and again": round(same, 1),
    }


def _us(call: Callable[[int], Any], count: int, rows: int) -> float:
    begun = time.process_time()
    for number in range(count):
        call(number % rows)
    return (time.process_time() - begun) / count * 1e6


def made_columns() -> tuple[dict[str, Any], Any]:
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {}
    for number in range(NUMBERS):
        columns[f"number_{number}"] = rng.normal(size=ROWS).astype(np.float32)
        if number % 4 == 0:
            columns[f"number_{number}"][rng.random(ROWS) < 0.1] = np.nan
    texts = np.array([*(f"text {code}" for code in range(12)), None], dtype=object)
    columns |= {f"category_{number}": rng.choice(texts, ROWS) for number in range(CATEGORIES)}
    score = columns["number_1"] * columns["number_2"] + np.nan_to_num(columns["number_0"])
    score = score + 1.5 * (columns["category_0"] == "text 3")
    return columns, (rng.random(ROWS) < 1 / (1 + np.exp(-score))).astype(np.int8)


def made_model(columns: Mapping[str, Any], label: Any) -> ScoringModel:
    every = np.arange(ROWS)
    inputs = learn_inputs(columns, list(columns), every)
    parameters = LightGBM(
        kind="lightgbm", trees=200, leaves=31, min_leaf_rows=20, early_stopping_rounds=0
    )
    rows = Rows(encode_rows(inputs, columns, every), label)
    options: dict[str, Any] = {"balanced": False, "seed": 1, "threads": 1}
    model = Fitting("trees", parameters, inputs, rows, None, **options).fit().model
    calibration = fit_calibration("isotonic", model.raw_scores(rows.matrix), label)
    return model.revised(calibration=calibration, threshold=0.2)


def _plain(columns: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return a row as a service has it: plain values, missing ones None."""
    found = {}
    for name, values in columns.items():
        value = values[index] if values.dtype == object else float(values[index])
        found[name] = None if value != value else value  # noqa: PLR0124 # NaN is not itself
    return found


if __name__ == "__main__":
    main()
