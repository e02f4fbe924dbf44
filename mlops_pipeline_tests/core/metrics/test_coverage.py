"""How often bounds and rules err, simulated: two benchmarks at a smaller size."""

from statistics import NormalDist

import pytest

from benchmarks import gate_rules
from benchmarks.statistics import ALLOWED_MISSES, ALLOWED_WIDTH, CELLS, Cell, simulate
from mlops_pipeline_tests.sizes import size

SIMULATIONS = size(60, 1_000)
SMALL = [cell for cell in CELLS if cell.is_clustered and cell.rows <= 1_000][:3]
# simulated themselves: in 1 of 1,000 cells a rate of 7 % is found to be higher than this
MARGIN = NormalDist().inv_cdf(0.999) * (ALLOWED_MISSES * (1 - ALLOWED_MISSES) / SIMULATIONS) ** 0.5

POWER_MARGIN = NormalDist().inv_cdf(0.999) * (0.8 * 0.2 / SIMULATIONS) ** 0.5


@pytest.mark.campaign
@pytest.mark.parametrize("cell", size(SMALL, CELLS), ids=lambda cell: cell.title)
def test_bounds_of_figures_hold_the_truth_and_are_not_wide(cell: Cell) -> None:
    found = simulate(cell, simulations=SIMULATIONS)
    missed = {name: tally.rates for name, tally in found.items()}
    widths = {name: tally.relative_width for name, tally in found.items()}
    assert not {name: each for name, each in missed.items() if max(each) > ALLOWED_MISSES + MARGIN}
    assert not {name: times for name, times in widths.items() if times > 1.1 * ALLOWED_WIDTH}


@pytest.mark.campaign
@pytest.mark.parametrize("rows", size(gate_rules.SIZES[1:2], gate_rules.SIZES))
def test_rules_of_the_gate_err_no_more_than_they_say(rows: int) -> None:
    found = gate_rules.simulate(
        rows, simulations=SIMULATIONS, draws=size(1, gate_rules.TRUTH_DRAWS)
    )
    errors = {
        (row["rule"], name): float(row[name]) - allowed
        for row in found
        if row["truth from the limit"] == "at it" and row["not computable"] != 1
        for name, allowed in (("false acceptance", 0.05), ("false refusal", 0.05))
    }
    tells = {row["rule"]: float(row["power there"]) for row in found if row["not computable"] != 1}
    assert len(tells) >= len(found) - 2  # of 200 rows, no slice is large enough
    if rows == 200:  # a difference of groups cannot be below 0, which makes its width too short
        del tells["demographic_parity"]
    assert not {key: beyond for key, beyond in errors.items() if beyond > MARGIN + 0.02}
    assert not {rule: share for rule, share in tells.items() if share < 0.8 - 0.02 - POWER_MARGIN}
