import numpy as np
import pytest

from mlops_pipeline.errors import DataError
from mlops_pipeline_tests.core.rollout.logged import OPENED_US, alike, pairs, rules


def test_first_takes_each_entitys_first_row_in_order_of_time() -> None:
    logged = alike(5, entity=np.array(["b", "a", "b", "c", "a"], dtype=object))

    assert logged.first(np.ones(5, dtype=bool)).tolist() == [0, 1, 3]
    assert logged.first(np.array([False, True, True, False, True])).tolist() == [1, 2]
    assert logged.first(np.zeros(5, dtype=bool)).tolist() == []


def test_pairs_that_differ_in_length_are_refused() -> None:
    with pytest.raises(DataError, match="differ in length"):
        pairs(np.full(3, 0.1), np.full(3, 0.1), label=np.zeros(2, dtype=np.int8))
    with pytest.raises(DataError, match="differ in length"):
        pairs(np.full(3, 0.1), np.full(2, 0.1))
    with pytest.raises(DataError, match="differ in length"):
        alike(3, protected={"gender": np.array(["f"], dtype=object)})


def test_pairs_out_of_order_are_refused() -> None:
    with pytest.raises(DataError, match="order of time"):
        alike(2, at_us=np.array([OPENED_US + 1, OPENED_US]))


def test_taking_rows_keeps_every_column() -> None:
    logged = alike(4, protected={"gender": np.array(["f", "m", "f", None], dtype=object)})
    assert logged.codes.tolist() == [0, 1, 2, 3]

    taken = logged.take(np.array([False, True, False, True]))

    assert taken.entity.tolist() == ["e1", "e3"]
    assert taken.codes.tolist() == [0, 1]
    assert taken.protected["gender"].tolist() == ["m", None]
    assert taken.challenger.probability.tolist() == logged.challenger.probability[1::2].tolist()


def test_rules_parity_is_that_of_fairness_unless_given() -> None:
    assert rules().parity_difference == 0.05
    assert rules(guardrails={"parity_difference": 0.2}).parity_difference == 0.2
    assert rules(evidence={"confidence": 0.9}).alpha == pytest.approx(0.1)
