"""Reweighing on Adult under the protocol of AIF360's demo_reweighing_preproc, beside its figures.

Protocol: adult.data and adult.test together; 18 inputs (race white or not, sex, age by decade with
70 and over together, education years below 6, each of 6 to 12, above 12); 70/15/15 at random;
standard scaling and logistic regression; the threshold of the best balanced accuracy on the
validation part, found for the model without weights and used for both, as the notebook does.
Groups by sex; signed differences, women minus men. Mean over five seeds.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, pstdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import ROOT
from benchmarks.result import Result, Row
from mlops_pipeline.core.mitigation.reweighing import reweigh
from mlops_pipeline.demo.datasets import fetch_dataset

FILES = ROOT.parent / "shared" / "data"
SEEDS = range(5)
THRESHOLDS = np.linspace(0.01, 0.99, 100)
WOMEN, MEN = 0, 1
PUBLISHED: Mapping[str, tuple[float, float]] = {  # one run of the notebook: before, after
    "statistical parity difference": (-0.358, -0.091),
    "equal opportunity difference": (-0.400, -0.052),
    "balanced accuracy": (0.742, 0.713),
}
BASE_RATES = "weighted base-rate difference"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def main() -> None:
    """Print figures before and after reweighing, beside the published ones."""
    values, sex, label = read_adult()
    runs = [one_seed(values, sex, label, seed) for seed in SEEDS]
    rows: list[Row] = [
        {
            "figure": name,
            "before": _spread([before[name] for before, _, _ in runs]),
            "after": _spread([after[name] for _, after, _ in runs]),
            "after, own threshold": _spread([own[name] for _, _, own in runs]),
            "published": " -> ".join(f"{each:.3f}" for each in PUBLISHED.get(name, (-0.19, 0.0))),
        }
        for name in runs[0][0]
    ]
    parity = "statistical parity difference"
    Result(
        name="fairness",
        what="statistical parity difference on Adult's test part, before and after reweighing by "
        f"sex (protocol of AIF360's demo_reweighing_preproc, mean of {len(SEEDS)} seeds)",
        figure=" -> ".join(
            f"{mean(run[position][parity] for run in runs):.3f}" for position in (0, 1)
        ),
        target="towards 0 by at least 0.267, the published -0.358 -> -0.091",
        tables={"": rows},
    ).print()


def read_adult() -> tuple[Floats, Ints, Ints]:
    """Return the 18 inputs, sex (0 women, 1 men) and label of every row."""
    import pandas as pd

    with TemporaryDirectory() as folder:
        fetched = fetch_dataset("adult", Path(folder), from_folder=FILES)
        parts = [pd.read_parquet(fetched.path / f"{part}.parquet") for part in ("train", "test")]
    frame = pd.concat(parts, ignore_index=True)
    sex = (frame["sex"] == "Male").to_numpy(np.int64)
    years = frame["education_num"].clip(5, 13)
    decade = (frame["age"] // 10).clip(upper=7)
    columns: list[Any] = [frame["race"] == "White", sex]
    columns += [decade == value for value in sorted(decade.unique())]
    columns += [years == value for value in range(5, 14)]
    return (
        np.column_stack(columns).astype(np.float64),
        sex,
        (frame["income"].str.startswith(">50K").to_numpy(np.int64)),
    )


def split(rows: int, seed: int) -> tuple[Ints, Ints, Ints]:
    """Return the places of the train, validation and test rows."""
    order = np.random.default_rng(seed).permutation(rows)
    train, held, test = np.split(order, [int(0.7 * rows), int(0.85 * rows)])
    return train, held, test


def one_seed(
    values: Floats, sex: Ints, label: Ints, seed: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return the figures without weights, with them, and with them at a threshold of their own."""
    train, held, test = split(len(label), seed)
    ones, weights = np.ones(len(train)), reweigh(label[train], sex[train])
    fits = [fitted_scores(values, label, train, each) for each in (ones, weights)]
    cuts = [_best_threshold(label[held], scores[held]) for scores in fits]
    found = []
    for scores, cut, each in (
        (fits[0], cuts[0], ones),
        (fits[1], cuts[0], weights),
        (fits[1], cuts[1], weights),
    ):
        figures = signed_differences(label[test], scores[test] > cut, sex[test])
        rates = [
            float(np.average(label[train][sex[train] == group], weights=each[sex[train] == group]))
            for group in (WOMEN, MEN)
        ]
        found.append({BASE_RATES: rates[0] - rates[1], **figures})
    return found[0], found[1], found[2]


def signed_differences(label: Ints, decision: npt.NDArray[np.bool_], sex: Ints) -> dict[str, float]:
    """Return women minus men by fairlearn's MetricFrame, and balanced accuracy."""
    from fairlearn.metrics import MetricFrame, selection_rate, true_positive_rate
    from sklearn.metrics import balanced_accuracy_score

    frame = MetricFrame(
        metrics={"selection": selection_rate, "tpr": true_positive_rate},
        y_true=label,
        y_pred=decision.astype(int),
        sensitive_features=sex,
    )
    difference = frame.by_group.loc[WOMEN] - frame.by_group.loc[MEN]
    return {
        "statistical parity difference": float(difference["selection"]),
        "equal opportunity difference": float(difference["tpr"]),
        "balanced accuracy": float(balanced_accuracy_score(label, decision)),
    }


def fitted_scores(values: Floats, label: Ints, train: Ints, weights: Floats) -> Floats:
    """Return the probabilities of every row, of a model fitted on the train rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(values[train])
    model = LogisticRegression()
    model.fit(scaler.transform(values[train]), label[train], sample_weight=weights)
    scores: Floats = model.predict_proba(scaler.transform(values))[:, 1]
    return scores


def _best_threshold(label: Ints, scores: Floats) -> float:
    reached = scores[:, None] > THRESHOLDS
    balanced = (reached[label == 1].mean(axis=0) + 1 - reached[label == 0].mean(axis=0)) / 2
    return float(THRESHOLDS[int(np.argmax(balanced))])


def _spread(values: list[float]) -> str:
    return f"{mean(values):.4f} +- {pstdev(values):.4f}"


if __name__ == "__main__":
    main()
