"""The guardrails of a rollout, as a table: what each means, and what share of the error it may use.

Together they roll an equal version back in at most 1 - confidence of all rollouts, however often
they are looked at.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.rollout import judgements as by
from mlops_pipeline.core.rollout.evidence import Counts, Evidence, GuardrailResult, Rules
from mlops_pipeline.core.rollout.judgements import SLOW_SHARE, Judgement, judge_share

Holds = Literal["always", "with labels", "never"]


class Guardrail(NamedTuple):
    """One guardrail; `holds`: when it has to be ok before a stage ends."""

    text: str
    of_alpha: float
    holds: Holds
    judge: Judgement


GUARDRAILS: Mapping[str, Guardrail] = {
    "error_rate": Guardrail("Share of requests it fails on.", 0.08, "always", by.error_rate),
    "latency": Guardrail("Share of answers that take too long.", 0.08, "always", by.latency),
    "default_rate": Guardrail("Share only it gives defaults to.", 0.08, "always", by.default_rate),
    "score_shift": Guardrail("Scores unlike those on unseen rows.", 0.06, "always", by.score_shift),
    "cost": Guardrail("Cost of decisions above the champion's.", 0.05, "never", by.cost),
    "outcome_rate": Guardrail("Outcomes changed by decisions.", 0.05, "never", by.outcome_rate),
    "fairness": Guardrail("Groups selected at other rates.", 0.08, "always", by.fairness),
    "realised": Guardrail("Brier score above the champion's.", 0.50, "with labels", by.realised),
    "sample_ratio": Guardrail("Share it answers; never harm.", 0.02, "always", by.sample_ratio),
}
FAST = ("error_rate", "latency", "default_rate")
OF_WINDOWS = 0.5  # of what a fast guardrail may err: in the service; the rest on the whole rollout


def judge(evidence: Evidence, rules: Rules) -> tuple[GuardrailResult, ...]:
    """Return what every guardrail that applies to the stage says, in the order of the table."""
    found = []
    for name, guardrail in GUARDRAILS.items():
        part = 1 - OF_WINDOWS if name in FAST else 1.0
        result = guardrail.judge(evidence, rules, rules.alpha * guardrail.of_alpha * part)
        if result is not None:
            found.append(result)
    return tuple(found)


def judge_fast(
    window: int, challenger: Counts, champion: Counts, policy: RolloutPolicy
) -> tuple[GuardrailResult, ...]:
    """Judge the counts of one minute, as often as one likes: a fault may come after a good year.

    `window` is 1 in the minute in which the trial began. The k-th may err by alpha / (k (k + 1)),
    which sums up to alpha.
    """
    limits = policy.guardrails
    errors = (challenger.errors, champion.errors, limits.error_share)
    slow = (challenger.slow, champion.slow, SLOW_SHARE)
    defaults = (challenger.defaults, champion.defaults, limits.default_share)
    spent = OF_WINDOWS * (1 - policy.evidence.confidence) / (window * (window + 1))
    return tuple(
        judge_share(
            name,
            (ours, challenger.requests),
            (theirs, champion.requests),
            limit=limit,
            alpha=spent * GUARDRAILS[name].of_alpha,
        )
        for name, (ours, theirs, limit) in zip(FAST, (errors, slow, defaults), strict=True)
    )
