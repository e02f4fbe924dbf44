"""Evidently's data-drift report of two frames: a page that fetches nothing, and the scores.

Belongs here: running Evidently on a bounded sample with its telemetry off. Which columns may drift
is judged by monitoring; this page shows a person what changed.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 5_000
THRESHOLD = 0.1  # Evidently's default for both distances
METHODS = {"numeric": "wasserstein", "category": "jensenshannon"}  # the same at every sample size


@dataclass(frozen=True)
class DriftSummary:
    """Distance of each column, largest first: 0 is no drift, from 0.1 on it counts as drifted.

    Numbers: Wasserstein distance in standard deviations of the reference. Texts and truth values:
    Jensen-Shannon distance in nats, at most 0.83. `skipped` says which columns have no distance,
    and why.
    """

    scores: dict[str, float]
    skipped: dict[str, str]
    rows_reference: int
    rows_current: int

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that count as drifted, worst first."""
        return tuple(name for name, score in self.scores.items() if score >= THRESHOLD)

    def worst(self, count: int = 5) -> dict[str, float]:
        """Return the columns that changed most, with their distance."""
        return dict(list(self.scores.items())[:count])


def write_drift_report(
    path: Path,
    reference: "pd.DataFrame",
    current: "pd.DataFrame",
    *,
    max_rows: int = MAX_ROWS,
    seed: int,
) -> DriftSummary:
    """Compare two frames column by column and write Evidently's HTML report."""
    first, second = _sampled(reference, max_rows, seed), _sampled(current, max_rows, seed)
    kinds, skipped = _comparable(first, second)
    if not kinds:
        found = "; ".join(f"{name}: {why}" for name, why in skipped.items()) or "no columns"
        raise DataError("no column can be compared for drift", found=found)
    first, second = _plain(first, kinds), _plain(second, kinds)
    result = _run(first, second, kinds)
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save_html(str(path))
    scores = {
        metric["config"]["column"]: float(metric["value"])
        for metric in result.dict()["metrics"]
        if "column" in metric["config"]
    }
    ranked = dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))
    return DriftSummary(ranked, skipped, len(first), len(second))


def _run(reference: "pd.DataFrame", current: "pd.DataFrame", kinds: dict[str, str]) -> Any:
    for switch in ("DO_NOT_TRACK", "ITERATIVE_DO_NOT_TRACK"):
        os.environ[switch] = "1"  # read when Evidently is imported and when it is used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies deprecate one another; none is ours
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        columns = {kind: [name for name, own in kinds.items() if own == kind] for kind in METHODS}
        definition = DataDefinition(
            numerical_columns=columns["numeric"], categorical_columns=columns["category"]
        )
        preset = DataDriftPreset(
            columns=list(kinds),
            num_method=METHODS["numeric"],
            cat_method=METHODS["category"],
            num_threshold=THRESHOLD,
            cat_threshold=THRESHOLD,
        )
        return Report([preset]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )


def _sampled(frame: "pd.DataFrame", rows: int, seed: int) -> "pd.DataFrame":
    if len(frame) == 0:
        raise DataError("a drift report needs rows", found="an empty frame")
    if len(frame) > rows:
        chosen = np.random.default_rng(seed).permutation(len(frame))[:rows]
        frame = frame.iloc[np.sort(chosen)]
    return frame.reset_index(drop=True)


def _comparable(
    first: "pd.DataFrame", second: "pd.DataFrame"
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the kind of each column that can be compared, and why the others cannot."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    kinds: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name in dict.fromkeys([*first.columns, *second.columns]):
        if name not in first or name not in second:
            skipped[name] = f"only in the {'reference' if name in first else 'current'} frame"
        elif first[name].isna().all() or second[name].isna().all():
            side = "reference" if first[name].isna().all() else "current"
            skipped[name] = f"no value in the {side} frame"
        else:
            both = (first[name], second[name])
            is_number = all(is_numeric_dtype(one) and not is_bool_dtype(one) for one in both)
            kinds[name] = "numeric" if is_number else "category"
    return kinds, skipped


def _plain(frame: "pd.DataFrame", kinds: dict[str, str]) -> "pd.DataFrame":
    """Return finite float64 numbers (others missing) and texts, which every version understands."""
    result = frame[list(kinds)].copy()
    for name, kind in kinds.items():
        if kind == "numeric":
            values = result[name].to_numpy(dtype=np.float64, na_value=np.nan)
            result[name] = np.where(np.isfinite(values), values, np.nan)
        else:
            result[name] = result[name].astype(object).map(str, na_action="ignore")
    return result
