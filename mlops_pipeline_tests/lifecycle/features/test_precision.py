"""Features whose precision takes their values: counted by hand, and in a shop of small amounts."""

from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.core.features.rounding import (
    EXACT,
    PrecisionLoss,
    RoundedFeature,
    precision_loss,
)
from mlops_pipeline.lifecycle.features.leak_check import leak_check, precision_losses
from mlops_pipeline_tests.worlds import VISITS, World, accept_all, advance, on, shop, utc, visit


def loss(*counts: tuple[int, int], largest: int = 6) -> PrecisionLoss | None:
    """Of the exact values, then at precision 4, 5 and 6: distinct values, and rows not 0."""
    feature = RoundedFeature("rate", 4, largest, None)
    assert feature.places == (EXACT, *range(4, largest + 1))
    return precision_loss(feature, [number for pair in counts for number in pair])


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (
            ((812, 900), (1, 0), (40, 900), (500, 900)),
            "rate: precision 4 leaves 1 of 812 distinct values (a constant); "
            "`precision: 6` would do",
        ),
        (
            ((1, 900), (1, 0), (1, 900), (1, 900)),  # 0.00004 everywhere becomes 0
            "rate: precision 4 leaves 1 of 1 distinct values (a constant); `precision: 5` would do",
        ),
        (
            ((800, 900), (99, 900), (100, 900), (800, 900)),
            "rate: precision 4 leaves 99 of 800 distinct values (88% of them lost); "
            "`precision: 5` would do",
        ),
        (
            ((800, 900), (1, 0), (1, 0), (1, 0)),
            "rate: precision 4 leaves 1 of 800 distinct values (a constant); no precision that "
            "can be asked for would do: multiply it by a unit",
        ),
    ],
)
def test_loss_says_what_is_lost_and_what_would_do(
    counts: tuple[tuple[int, int], ...], sentence: str
) -> None:
    found = loss(*counts)
    assert found is not None
    assert found.sentence == sentence


@pytest.mark.parametrize(
    "counts",
    [
        ((10_000, 9_000), (100, 9_000), (1, 1), (1, 1)),  # levels enough for any model
        ((4, 9), (2, 9), (4, 9), (4, 9)),  # half of them
        ((1, 9), (1, 9), (1, 9), (1, 9)),  # a constant before
        ((1, 0), (1, 0), (1, 0), (1, 0)),  # 0 before
        ((0, 0), (0, 0), (0, 0), (0, 0)),  # no value at all
    ],
)
def test_feature_that_keeps_its_values_loses_nothing(counts: tuple[tuple[int, int], ...]) -> None:
    assert loss(*counts) is None


def test_features_of_a_shop_of_small_amounts_are_named_and_figures_stay(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "tiny": {"aggregate": "sum", "of": "amount"},
        "fine": {"aggregate": "sum", "of": "amount", "precision": 6},
        "scaled": {"aggregate": "max", "of": "amount * 100000"},
        "visits": {"aggregate": "count", "dtype": "int64"},
    }
    derived = {
        "small_share": {"expression": "fine / 1000", "precision": 4},
        "share": {"expression": "fine / 1000", "precision": 9},
    }
    views = {"history": {"source": "visits", "columns": columns}}
    case = shop(views=views, derived=derived, sources={"visits": VISITS}, protected={})
    world = World(case, tmp_path)
    rows = [
        visit(on(1, 1 + customer), customer, amount=amount / 100_000)
        for customer in range(20)
        for amount in (1 + customer % 4, 2)
    ]
    world.deliver("visits", rows)
    with world.open() as work:
        advance(work, utc(on(3)), utc(on(3)))
        accepted = accept_all(work)
        leak_check(work, accepted)
        found = precision_losses(work, accepted, frame="_leak_stored")
    assert [(item.feature, item.left, item.distinct, item.enough) for item in found] == [
        ("tiny", 1, 4, 5),
        ("small_share", 1, 4, 7),  # of 3e-8 to 6e-8 two round to 1e-7
    ]
