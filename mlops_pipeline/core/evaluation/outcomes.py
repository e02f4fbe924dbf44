"""What the gate found: each rule's outcome, and all of them together.

How rules are held against an evaluation is gates.py's.
"""

from dataclasses import dataclass
from statistics import NormalDist

from mlops_pipeline.core.metrics.metrics import Outcome
from mlops_pipeline.spec.rules import Effect


@dataclass(frozen=True)
class RuleResult:
    """One rule's outcome.

    A figure with an interval passes when its one-sided 95 % bound clears the limit, fails when the
    opposite bound is beyond it, and is uncertain between: so few rows cannot tell. `clears` says
    on which side the figure itself is. `effect` is that of the rule, unless the reason says why
    another one counts. `power` is how much better than the limit the truth must be for 80 of 100
    samples of this size to pass; a truth at the limit passes, and fails, in at most 5.

    `failing` are the protected attributes beyond the limit. `excepted`: it failed, and a person
    lets it through for a time; the reason says who, why and until when.
    """

    name: str
    value: float | None
    threshold: float
    outcome: Outcome
    effect: Effect
    reason: str
    failing: tuple[str, ...] = ()
    excepted: bool = False
    clears: bool | None = None
    power: float | None = None

    @property
    def blocks(self) -> bool:
        """Whether it keeps the model out of the registry."""
        return self.outcome == "failed" and self.effect == "block" and not self.excepted

    @property
    def asks(self) -> bool:
        """Whether a person has to approve because of it."""
        if self.outcome == "failed":
            return self.effect == "review" or (self.effect == "block" and self.excepted)
        return self.outcome != "passed" and self.effect != "warn"


@dataclass(frozen=True)
class Gate:
    """The whole gate's outcome.

    `passed`: no blocking rule failed. `needs_review`: a person has to approve, because a review
    rule failed, or a blocking or review rule is uncertain or not computable.
    """

    passed: bool
    needs_review: bool
    rules: tuple[RuleResult, ...]

    @property
    def failed(self) -> tuple[RuleResult, ...]:
        """Every rule that did not pass."""
        return tuple(rule for rule in self.rules if rule.outcome != "passed")


def tells(width: float, among: int = 1) -> float:
    """Return how far beyond a limit the truth must lie for at least 80 of 100 samples to pass.

    `width` is from the lower to the upper bound; `among` so many figures have to pass, all alike.
    """
    z = NormalDist().inv_cdf
    return width * (z(0.95) + z(0.8 ** (1 / among))) / (2 * z(0.95))
