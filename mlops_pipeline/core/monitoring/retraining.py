"""The retraining decision: one pure function, with its reason, also when the answer is no."""

from dataclasses import dataclass
from typing import Literal

from mlops_pipeline.config.modelling import Retraining

Trigger = Literal["new_labels", "new_data", "monthly"]


@dataclass(frozen=True)
class Evidence:
    """What is known when the decision is made; as_of as ISO dates."""

    trigger: Trigger
    new_labels: int  # that became known since the last finished lifecycle's as_of
    has_new_data: bool  # a source is newer than what was accepted
    attempts: int  # runs already requested on exactly this evidence
    last_as_of: str | None  # of the last finished lifecycle
    next_as_of: str | None  # that a run would have now


@dataclass(frozen=True)
class RetrainingDecision:
    """Whether to run the lifecycle, and why."""

    retrain: bool
    reason: str
    evidence: Evidence


def decide(evidence: Evidence, policy: Retraining) -> RetrainingDecision:
    """Decide whether the evidence asks for a lifecycle run under the policy."""
    retrain, reason = _decision(evidence, policy)
    return RetrainingDecision(retrain, reason, evidence)


def _decision(evidence: Evidence, policy: Retraining) -> tuple[bool, str]:
    if evidence.next_as_of is None:
        return False, "the sources hold no data yet"
    if evidence.last_as_of is None:
        return False, "no lifecycle has finished yet; start the first one by hand"
    if evidence.next_as_of <= evidence.last_as_of:
        return False, f"nothing is newer than the last lifecycle's as_of {evidence.last_as_of}"
    if evidence.attempts >= policy.max_attempts:
        return False, (
            f"{evidence.attempts} runs on this evidence did not finish (at most "
            f"{policy.max_attempts}); mend the cause and run it by hand"
        )
    if evidence.trigger == "new_labels":
        enough = evidence.new_labels > policy.new_labels
        word = "more than" if enough else "not more than"
        return enough, f"{evidence.new_labels:,} new labels, {word} {policy.new_labels:,}"
    if evidence.trigger == "new_data":
        if evidence.has_new_data:
            return True, "a source is newer than what was accepted"
        return False, "no source is newer than what was accepted"
    return True, f"monthly retraining: as_of moves on to {evidence.next_as_of}"
