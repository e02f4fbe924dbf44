"""Logged requests of two versions, as evidence for guardrails: what is not given is faultless."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.config.modelling import Costs, Fairness, RolloutPolicy
from mlops_pipeline.core.metrics.references import score_reference
from mlops_pipeline.core.rollout.evidence import Evidence, Pairs, Rules, Scored

Floats = NDArray[np.float64]
OPENED = datetime(2026, 1, 1, tzinfo=UTC)
OPENED_US = 1_767_225_600_000_000
MINUTE_US = 60_000_000
STAGES = (
    {"share": 0, "days": 7, "requests": 100},
    {"share": 0.05, "days": 3},
    {"share": 0.5, "days": 3, "approval": True},
    {"share": 1},
)


def rules(**sections: Any) -> Rules:
    """Return rules of a policy with these sections."""
    policy = RolloutPolicy.model_validate({"stages": STAGES, **sections})
    return Rules(policy, Fairness(), Costs(false_positive=1, false_negative=4))


def scored(probability: Floats, **columns: Any) -> Scored:
    """Return what a version says at a threshold of 0.5, without faults unless they are given."""
    rows = len(probability)
    faultless: dict[str, Any] = {
        "decision": probability >= 0.5,
        "is_default": np.isnan(probability),
        "is_error": np.zeros(rows, dtype=bool),
        "latency_us": np.full(rows, 5_000),
    }
    return Scored(probability, **faultless | columns)


def pairs(champion: Floats | Scored, challenger: Floats | Scored, **columns: Any) -> Pairs:
    """Return one request a minute, each of an entity of its own, in shadow, with label 0."""
    versions = [one if isinstance(one, Scored) else scored(one) for one in (champion, challenger)]
    rows = len(versions[0].probability)
    given: dict[str, Any] = {
        "entity": np.array([f"e{row}" for row in range(rows)], dtype=object),
        "at_us": OPENED_US + MINUTE_US * np.arange(rows),
        "share": np.zeros(rows),
        "is_canary": np.zeros(rows, dtype=bool),
        "label": np.zeros(rows, dtype=np.int8),
        "is_complete": np.ones(rows, dtype=bool),
        "protected": {},
    }
    return Pairs(champion=versions[0], challenger=versions[1], **given | columns)


def alike(rows: int, **columns: Any) -> Pairs:
    """Return requests with the same scores of both versions, and labels that fit them."""
    rng = np.random.default_rng(11)
    scores = rng.beta(1, 9, rows)
    label = (rng.random(rows) < scores).astype(np.int8)
    return pairs(scores, scores, **{"label": label, **columns})


def evidence(logged: Pairs, share: float = 0.0) -> Evidence:
    """Return evidence with references as the scores are."""
    reference = score_reference(np.random.default_rng(12).beta(1, 9, 5_000))
    return Evidence(logged, share, reference, reference)
