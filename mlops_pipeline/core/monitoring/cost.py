"""What a use case costs: per training run, per 1,000 predictions, per accepted improvement.

Belongs here: the arithmetic. Seconds are those that assets work (not starting processes), the price
is the configured one of the machine; nothing is assumed about people's time.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.metrics.metrics import Estimate

TRAINING_STEP = "trained_model"
SCORING_STEP = "batch_predictions"
PER = 1_000  # predictions, the unit in which scoring is priced


@dataclass(frozen=True)
class CostSheet:
    """The costs of a use case so far, in `currency`.

    `total` is of everything measured, refused and failed runs included; a training run's price is
    every asset of it but scoring, the mean over runs that reached training; `accepted` are versions
    that ever became champion, and everything but scoring is shared among them.
    """

    use_case: str
    owner: str
    currency: str
    total: float
    training_runs: int
    per_training_run: Estimate
    predictions: int
    per_1000_predictions: Estimate
    accepted: int
    per_accepted_improvement: Estimate

    @property
    def unit_costs(self) -> dict[str, Estimate]:
        """The three prices by name."""
        return {
            "per_training_run": self.per_training_run,
            "per_1000_predictions": self.per_1000_predictions,
            "per_accepted_version": self.per_accepted_improvement,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON: an estimate as its value, None where it is not computable."""
        plain = asdict(self).items()
        return {name: item["value"] if isinstance(item, dict) else item for name, item in plain}


def cost_sheet(
    use_case: UseCase,
    seconds: Mapping[str, Mapping[str, float]],
    *,
    predictions: int,
    accepted: int,
) -> CostSheet:
    """Add up what was measured: seconds of every run, whatever its outcome, by asset."""
    price = use_case.compute_cost
    runs = seconds.values()
    scoring = sum(run.get(SCORING_STEP, 0.0) for run in runs)
    of_runs = [sum(run[step] for step in run if step != SCORING_STEP) for run in runs]
    training = [spent for spent, run in zip(of_runs, runs, strict=True) if TRAINING_STEP in run]
    making = price.of(sum(of_runs))
    return CostSheet(
        use_case=use_case.name,
        owner=use_case.owner,
        currency=price.currency,
        total=price.of(scoring + sum(of_runs)),
        training_runs=len(training),
        per_training_run=_per(price.of(sum(training)), len(training), "no run reached training"),
        predictions=predictions,
        per_1000_predictions=_per(price.of(scoring) * PER, predictions, "nothing was scored"),
        accepted=accepted,
        per_accepted_improvement=_per(making, accepted, "no version was accepted"),
    )


def total_by_owner(sheets: Sequence[CostSheet]) -> dict[tuple[str, str], float]:
    """Return {(owner, currency): total}; currencies are never added up."""
    totals: dict[tuple[str, str], float] = defaultdict(float)
    for sheet in sheets:
        totals[sheet.owner, sheet.currency] += sheet.total
    return totals


def price_text(price: Estimate, currency: str = "") -> str:
    """Return a price as a person reads it, or why there is none."""
    if price.value is None:
        return price.reason or ""
    return f"{price.value:.4f} {currency}".rstrip()


def _per(cost: float, count: int, missing: str) -> Estimate:
    return Estimate(cost / count) if count else Estimate(None, reason=missing)
