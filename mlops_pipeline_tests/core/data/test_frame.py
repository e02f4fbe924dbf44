from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlops_pipeline.config.modelling import Split
from mlops_pipeline.config.tables import Grid
from mlops_pipeline.core.data.frame import LabelledFrame, Parts, split_rows
from mlops_pipeline.errors import SplitError

MONTHLY = Grid.model_validate({"every": "month", "start": "2009-01-01"})
BY_EVENT = Grid.model_validate({"every": "event", "period": "month"})
BY_WEEK = Grid.model_validate({"every": "event", "period": "week"})
Moments = npt.NDArray[np.datetime64]


def months(first: str, count: int, rows: int = 4) -> Moments:
    """`rows` rows on the first of each of `count` months."""
    names = np.arange(np.datetime64(first, "M"), np.datetime64(first, "M") + count)
    return np.repeat(names.astype("datetime64[us]"), rows)


def split(
    as_of: Moments,
    known_at: Moments | None = None,
    *,
    rule: Split | None = None,
    grid: Grid = MONTHLY,
    label: npt.NDArray[np.int8] | None = None,
    entity: npt.NDArray[Any] | None = None,
    seed: int = 1,
) -> Parts:
    frame = LabelledFrame(
        columns={},
        protected={},
        as_of=as_of,
        known_at=as_of if known_at is None else known_at,
        entity=np.arange(len(as_of)) if entity is None else entity,
        label=np.arange(len(as_of)).astype(np.int8) % 2 if label is None else label,
    )
    return split_rows(rule or Split(), grid, frame, seed)


def test_split_of_19_labelled_months_like_online_retail_tests_the_last_three() -> None:
    as_of = months("2010-03", 19)
    parts = split(as_of, as_of + np.timedelta64(90, "D"))
    assert parts.periods["test"] == ("2011-07-01", "2011-08-01", "2011-09-01")
    # 90 days before 2011-04-01 is 2011-01-01: the validation months whose labels were known by test
    assert parts.periods["validation"] == ("2011-04-01",)
    assert parts.periods["train"][-1] == "2011-01-01"
    assert parts.purged == 4 * 4
    assert sum(parts.rows().values()) + parts.purged == len(as_of)


def test_split_purges_exactly_the_rows_whose_label_was_unknown_when_the_next_part_starts() -> None:
    as_of = months("2020-01", 10)
    known = as_of.copy()
    validation_start, test_start = np.datetime64("2020-07-01"), np.datetime64("2020-09-01")
    known[23] = validation_start  # the last training row: known in time
    known[22] = validation_start + np.timedelta64(1, "us")  # a moment late
    known[0] = test_start  # early as_of, late label
    known[30] = test_start + np.timedelta64(1, "us")
    parts = split(as_of, known)
    assert parts.train.tolist() == [i for i in range(24) if i not in (0, 22)]
    assert parts.validation.tolist() == [i for i in range(24, 32) if i != 30]
    assert parts.test.tolist() == list(range(32, 40))
    assert parts.purged == 3


def test_split_of_events_cuts_between_whole_months() -> None:
    as_of = months("2020-01", 10) + np.arange(40).astype("timedelta64[h]") * 17
    parts = split(as_of, grid=BY_EVENT)
    assert parts.periods["validation"] == ("2020-07-01", "2020-08-01")
    assert parts.rows() == {"train": 24, "validation": 8, "test": 8}


def test_split_of_events_by_week_cuts_on_mondays() -> None:
    as_of = np.datetime64("2020-01-01", "us") + np.arange(70).astype("timedelta64[D]")
    parts = split(as_of, grid=BY_WEEK)
    for names in parts.periods.values():
        assert all(np.datetime64(name).astype(object).weekday() == 0 for name in names)
    assert parts.periods["train"][0] == "2019-12-30"


def test_split_of_too_few_periods_names_them() -> None:
    with pytest.raises(SplitError) as caught:
        split(months("2020-01", 2))
    assert str(caught.value) == (
        "there are too few labelled periods for three parts\n"
        "  expected: at least 3\n"
        "  found: 2: 2020-01-01, 2020-02-01\n"
        "  what to do: run at a later as_of, or start the grid earlier"
    )


def test_split_part_empty_after_purging_names_its_dates() -> None:
    as_of = months("2020-01", 10)
    with pytest.raises(SplitError) as caught:
        split(as_of, as_of + np.timedelta64(90, "D"))
    assert caught.value.what.startswith("the validation part is empty after purging")
    assert caught.value.where == (
        "train before 2020-07-01, validation 2020-07-01 to 2020-09-01, test from 2020-09-01"
    )
    assert "2020-09-29" in str(caught.value.found)
    assert caught.value.expected
    assert caught.value.way_out


@pytest.mark.parametrize(("part", "low", "high"), [("train", 0, 24), ("test", 32, 40)])
def test_split_part_of_a_single_class_names_its_periods(part: str, low: int, high: int) -> None:
    label = np.arange(40).astype(np.int8) % 2
    label[low:high] = 1
    with pytest.raises(SplitError) as caught:
        split(months("2020-01", 10), label=label)
    assert caught.value.what == f"the {part} part has a single class"
    assert str(caught.value.where).startswith("periods 2020-")
    assert caught.value.expected == "labels 0 and 1"
    assert caught.value.found == f"only 1 in {high - low} rows"
    assert "label.where" in str(caught.value.way_out)


def test_random_split_keeps_every_entity_in_one_part() -> None:
    entity = np.repeat(np.array([f"e{number}" for number in range(200)], dtype=object), 3)
    parts = split(months("2020-01", 150), entity=entity, rule=Split(method="random"))
    groups = [set(entity[rows]) for rows in (parts.train, parts.validation, parts.test)]
    assert [len(group) for group in groups] == [140, 30, 30]
    assert not groups[0] & groups[1]
    assert not groups[1] & groups[2]
    assert not groups[0] & groups[2]
    assert parts.purged == 0


def test_random_split_has_the_same_share_of_positive_entities_in_every_part() -> None:
    label = (np.arange(1_000) % 10 == 0).astype(np.int8)
    as_of, entity = months("2020-01", 250), np.arange(1_000)
    for seed in range(5):
        parts = split(as_of, label=label, entity=entity, rule=Split(method="random"), seed=seed)
        for rows in (parts.train, parts.validation, parts.test):
            assert label[rows].mean() == pytest.approx(0.1, abs=0.01)


def test_random_split_with_the_same_seed_is_the_same_and_with_another_is_not() -> None:
    as_of, rule = months("2020-01", 50), Split(method="random")
    first, again, other = (split(as_of, rule=rule, seed=seed) for seed in (1, 1, 2))
    assert first.test.tolist() == again.test.tolist()
    assert first.test.tolist() != other.test.tolist()


def test_random_split_with_an_empty_part_says_what_to_do() -> None:
    entity = np.array(["a", "a", "b", "b"], dtype=object)
    with pytest.raises(SplitError) as caught:
        split(months("2020-01", 1), rule=Split(method="random"), entity=entity)
    assert caught.value.what == "the test part is empty"
    assert caught.value.expected == "at least one labelled row"
    assert caught.value.way_out == "more data, or other split fractions"
