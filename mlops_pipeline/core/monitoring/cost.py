"""What a use case costs: per training run, per 1,000 predictions, per accepted improvement.

Belongs here: the arithmetic. Seconds are those that assets work (not starting processes), the price
is the configured one of the machine; nothing is assumed about people's time.
"""

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
        plain = asdict(self)
        return {
            name: value["value"] if isinstance(value, dict) else value
            for name, value in plain.items()
        }


def cost_sheet(
    use_case: UseCase,
    seconds: Mapping[str, Mapping[str, float]],
    *,
    predictions: int,
    accepted: int,
) -> CostSheet:
    """Add up what was measured: seconds of every run, whatever its outcome, by asset."""
    price = use_case.compute_cost
    scoring = sum(run.get(SCORING_STEP, 0.0) for run in seconds.values())
    making = {run_id: _without_scoring(run) for run_id, run in seconds.items()}
    training = [making[run_id] for run_id, run in seconds.items() if TRAINING_STEP in run]
    return CostSheet(
        use_case=use_case.name,
        owner=use_case.owner,
        currency=price.currency,
        total=price.of(scoring + sum(making.values())),
        training_runs=len(training),
        per_training_run=_per(price.of(sum(training)), len(training), "no run reached training"),
        predictions=predictions,
        per_1000_predictions=_per(price.of(scoring) * PER, predictions, "nothing was scored"),
        accepted=accepted,
        per_accepted_improvement=_per(
            price.of(sum(making.values())), accepted, "no version was accepted"
        ),
    )


def total_by_owner(sheets: Sequence[CostSheet]) -> dict[tuple[str, str], float]:
    """Return {(owner, currency): total}; currencies are never added up."""
    totals: dict[tuple[str, str], float] = {}
    for sheet in sheets:
        key = (sheet.owner, sheet.currency)
        totals[key] = totals.get(key, 0.0) + sheet.total
    return totals


def price_text(price: Estimate, currency: str = "") -> str:
    """Return a price as a person reads it, or why there is none."""
    if price.value is None:
        return price.reason or ""
    return f"{price.value:.4f} {currency}".rstrip()


def _without_scoring(run: Mapping[str, float]) -> float:
    return sum(value for name, value in run.items() if name != SCORING_STEP)


def _per(cost: float, count: int, missing: str) -> Estimate:
    return Estimate(cost / count) if count else Estimate(None, reason=missing)
