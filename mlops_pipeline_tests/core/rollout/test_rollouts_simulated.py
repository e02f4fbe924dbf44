"""How simulated rollouts end: the benchmark `rollouts` at a smaller size."""

from statistics import NormalDist

import pytest

from benchmarks.rollouts import CELLS, Cell, simulate
from mlops_pipeline_tests.sizes import size

ROLLOUTS = size(6, 1_000)
ONE_IN_A_THOUSAND = NormalDist().inv_cdf(0.999)


def _slack(share: float) -> float:
    """Return how far a simulated share may be from this one: exceeded once in 1,000 times."""
    return ONE_IN_A_THOUSAND * float((share * (1 - share) / ROLLOUTS) ** 0.5)


@pytest.mark.campaign
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.title}, {cell.kind}")
def test_rollouts_end_as_promised(cell: Cell) -> None:
    found = simulate(cell, rollouts=ROLLOUTS)

    if cell.kind == "as good":
        assert found.share("rolled back") <= 0.05 + _slack(0.05)
        assert found.promoted_within(cell.stated) >= 0.80 - _slack(0.80)
    elif cell.kind == "worse by the margin":
        assert found.share("promoted") <= 0.05 + _slack(0.05)
    else:
        assert found.stopped_early >= 0.90 - _slack(0.90)
