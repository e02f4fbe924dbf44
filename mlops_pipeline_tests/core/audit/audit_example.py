"""Decisions about groups, a few by hand and many at random, and their audits."""

from typing import Any

import numpy as np
import pandas as pd

from mlops_pipeline.core.fairness.audit import GroupAudit, GroupRates, audit_groups
from mlops_pipeline.core.metrics.metrics import Estimate

# group a: 4 rows, 2 positives, 3 selected (2 hits); group b: 4 rows, 2 positives, 1 selected (hit)
Y = [1, 1, 0, 0, 1, 1, 0, 0]
D = [1, 1, 1, 0, 1, 0, 0, 0]
G = pd.Series(list("aaaabbbb"))


def audit(**changes: Any) -> GroupAudit:
    inputs: dict[str, Any] = {"y": Y, "decisions": D, "groups": G, "attribute": "sex"}
    return audit_groups(**(inputs | {"min_group_rows": 1} | changes))


def rates_of(found: GroupAudit, group: str) -> GroupRates:
    return next(rates for rates in found.groups if rates.group == group)


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def large(rows: int = 6_000, seed: int = 0) -> dict[str, Any]:
    """Two groups selected at 0.3 and 0.4, independent of the label."""
    rng = np.random.default_rng(seed)
    groups = pd.Series(rng.choice(["a", "b"], rows))
    decisions = rng.random(rows) < np.where(groups == "a", 0.3, 0.4)
    return {"y": rng.random(rows) < 0.5, "decisions": decisions, "groups": groups}


def scored(rows: int = 4_000, seed: int = 1) -> dict[str, Any]:
    """Scores of two regions and two genders; in the south more happens than is predicted."""
    rng = np.random.default_rng(seed)
    region = rng.choice(["north", "south"], rows)
    p = rng.beta(2, 6, rows)
    truth = np.clip(p + 0.1 * (region == "south"), 0, 1)
    return {
        "y": (rng.random(rows) < truth).astype(int),
        "decisions": p >= 0.3,
        "scores": p,
        "groups": pd.Series(region),
        "entities": np.arange(rows) // 2,
    }
