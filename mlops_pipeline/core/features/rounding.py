"""What a feature's `precision` takes from the values that it is made of.

Belongs here: which values are rounded, as Ibis expressions over a sample of rows, and whether too
little is left. Rounding itself is `typed`'s; a lifecycle runs this in lifecycle/features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_ibis import to_ibis, typed

LARGEST_OF_VIEWS, LARGEST_OF_DERIVED = 6, 12  # decimals that a configuration can ask for
EXACT = 15  # decimals of a float64 about 1
FEW_VALUES = 100  # with so many left, nothing that a model could see is lost


@dataclass(frozen=True)
class RoundedFeature:
    """A feature of decimals, and what it rounds: inputs of sums, means, deviations, or itself."""

    name: str
    precision: int
    largest: int
    value: Any  # an Ibis expression

    @property
    def places(self) -> tuple[int, ...]:
        """The decimals to count at: nearly all, its own, and what a configuration could ask for."""
        return (EXACT, *range(self.precision, self.largest + 1))

    def counts(self) -> list[Any]:
        """Return the expressions that `precision_loss` reads, two for each of `places`."""
        rounded = [typed(self.value, "float64", places) for places in self.places]
        return [count for one in rounded for count in (one.nunique(), (one != 0).sum())]


@dataclass(frozen=True)
class PrecisionLoss:
    """A feature that rounding leaves constant, or without most of its distinct values."""

    feature: str
    precision: int
    distinct: int
    left: int
    enough: int | None  # the precision that would do, None: no one that can be asked for

    @property
    def sentence(self) -> str:
        """What is lost, and the way out."""
        way_out = f"`precision: {self.enough}` would do"
        if self.enough is None:
            way_out = "no precision that can be asked for would do: multiply it by a unit"
        share = 1 - self.left / self.distinct
        lost = f"{share:.0%} of them lost" if self.left > 1 else "a constant"
        return (
            f"{self.feature}: precision {self.precision} leaves {self.left:,} of "
            f"{self.distinct:,} distinct values ({lost}); {way_out}"
        )


def source_features(use_case: UseCase, source: str, table: Any) -> list[RoundedFeature]:
    """Return the features of a source that round decimals, over its rows."""
    return [
        RoundedFeature(name, column.precision, LARGEST_OF_VIEWS, to_ibis(column.of, table))
        for view in use_case.views.values()
        if view.source == source
        for name, column in view.columns.items()
        if column.dtype == "float64" and column.of is not None and not column.is_count
    ]


def derived_features(use_case: UseCase, frame: Any) -> list[RoundedFeature]:
    """Return the derived features that round decimals, over a frame that has what they read."""
    return [
        RoundedFeature(name, item.precision, LARGEST_OF_DERIVED, to_ibis(item.expression, frame))
        for name, item in use_case.derived.items()
        if item.dtype == "float64"
    ]


def precision_loss(feature: RoundedFeature, found: Sequence[int | None]) -> PrecisionLoss | None:
    """Return what a feature loses, by its counts; None where enough is left."""
    numbers = [count or 0 for count in found]
    counts = dict(zip(feature.places, zip(numbers[::2], numbers[1::2], strict=True), strict=True))
    exact = counts[EXACT]
    own, *finer = feature.places[1:]
    if _is_enough(counts[own], exact):
        return None
    enough = next((each for each in finer if _is_enough(counts[each], exact)), None)
    return PrecisionLoss(feature.name, own, exact[0], counts[own][0], enough)


def _is_enough(rounded: tuple[int, int], exact: tuple[int, int]) -> bool:
    """Compare the numbers of distinct values, and of rows that are not 0."""
    (left, others), (distinct, exact_others) = rounded, exact
    if left <= 1:
        return distinct <= 1 and (others > 0 or exact_others == 0)
    return left >= FEW_VALUES or 2 * left >= distinct
