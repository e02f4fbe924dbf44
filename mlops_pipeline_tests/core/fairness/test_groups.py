"""Groups, reweighing and the selection difference: hand-computed, and beside fairlearn's audit."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_pipeline.core.fairness.audit import attribute_values
from mlops_pipeline.core.fairness.variants import Groups, learn_groups, selection_difference
from mlops_pipeline.core.mitigation.reweighing import reweigh


def texts(*values: str | None) -> npt.NDArray[np.object_]:
    return np.array(values, dtype=object)


def test_learn_groups_small_groups_are_one_together() -> None:
    region = texts(*["north"] * 5, *["south"] * 4, *["west"] * 2, "east", None)
    groups = learn_groups({"region": region}, ["region"], min_rows=3)
    assert groups.values == ((("north",),), (("south",),), (("east",), ("west",)))
    assert groups.codes({"region": texts("west", "east", "south", None, "moon")}).tolist() == [
        *(2, 2, 1, -1, -1)
    ]


def test_learn_groups_too_small_together_have_no_group() -> None:
    region = texts(*["north"] * 5, *["south"] * 4, "west", "east")
    assert learn_groups({"region": region}, ["region"], min_rows=3).values == (
        (("north",),),
        (("south",),),
    )


def test_learn_groups_of_two_attributes_are_their_combinations() -> None:
    protected = {
        "region": texts("n", "n", "n", "s", "s", "s", None),
        "gender": texts("f", "f", "m", "f", "f", None, "m"),
    }
    groups = learn_groups(protected, ["region", "gender"], min_rows=2)
    assert groups == Groups(("region", "gender"), ((("n", "f"),), (("s", "f"),)))
    assert groups.codes(protected).tolist() == [0, 0, -1, 1, 1, -1, -1]


def test_reweigh_hand_computed() -> None:
    label = np.array([1, 1, 1, 0, 1, 0, 0, 0, 1])
    codes = np.array([0, 0, 0, 0, 1, 1, 1, 1, -1])
    # P(g) = 1/2, P(y=1) = 4/8; P(0, 1) = 3/8, P(0, 0) = 1/8, P(1, 1) = 1/8, P(1, 0) = 3/8
    expected = [2 / 3, 2 / 3, 2 / 3, 2, 2, 2 / 3, 2 / 3, 2 / 3, 1]
    assert reweigh(label, codes).tolist() == pytest.approx(expected, abs=1e-15)


def test_reweigh_group_with_one_label_keeps_its_base_rate() -> None:
    label, codes = np.array([1, 1, 0, 1]), np.array([0, 0, 1, 1])
    weights = reweigh(label, codes)
    assert weights.tolist() == pytest.approx([3 / 4, 3 / 4, 1 / 2, 3 / 2])


@given(
    st.lists(
        st.tuples(st.integers(-1, 2), st.integers(0, 1)),
        min_size=1,
        max_size=60,
    )
)
def test_reweigh_base_rates_are_equal_and_totals_stay(rows: list[tuple[int, int]]) -> None:
    full = [(group, label) for group in range(3) for label in (0, 1)]  # every cell is there
    codes, label = (np.array(values) for values in zip(*[*rows, *full], strict=True))
    weights = reweigh(label, codes)
    rates = [np.average(label[codes == g], weights=weights[codes == g]) for g in range(3)]
    assert np.ptp(rates) < 1e-12
    assert [weights[codes == g].sum() for g in range(3)] == pytest.approx(
        [np.sum(codes == g) for g in range(3)]
    )


@pytest.mark.parametrize("seed", range(3))
def test_selection_difference_equals_fairlearn(seed: int) -> None:
    from fairlearn.metrics import demographic_parity_difference

    dice = np.random.default_rng(seed)
    group = np.array(["a", "b", "c"], dtype=object)[dice.integers(0, 3, 200)]
    decision = dice.random(200) < 0.2 + 0.3 * (group == "b")
    beside = texts(*group, *["small"] * 20, *[None] * 20)  # neither counts
    found = selection_difference(np.append(decision, np.ones(40, dtype=bool)), beside, min_rows=21)
    expected = demographic_parity_difference(decision, decision, sensitive_features=group)
    assert found == pytest.approx(expected, abs=1e-12)


def test_selection_difference_of_one_group_is_not_computable() -> None:
    group = texts(*["a"] * 100, *["b"] * 99)
    assert selection_difference(np.ones(199, dtype=bool), group, 100) is None


def test_attribute_values_of_an_intersection_are_pairs() -> None:
    protected = {"a": texts("x", "y", None), "b": texts("u", None, "v")}
    assert attribute_values(protected, "a").tolist() == ["x", "y", None]
    assert attribute_values(protected, "a x b").tolist() == ["x x u", None, None]
