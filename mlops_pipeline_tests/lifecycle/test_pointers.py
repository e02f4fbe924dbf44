from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest

from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, set_pointer
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later


def test_pointer_never_set_is_none(database: OpsDatabase) -> None:
    assert get_pointer(database, "churn", "accepted") is None


def test_pointer_set_twice_holds_the_last_document(database: OpsDatabase) -> None:
    set_pointer(database, "churn", "accepted", {"orders": 1}, run_id="run-1", now=NOON)
    document = {"orders": 2, "nested": {"list": [1, 0.1, None, True, "é\x00"]}}
    set_pointer(database, "churn", "accepted", document, run_id="run-2", now=later(1))
    found = get_pointer(database, "churn", "accepted")
    assert found is not None
    assert (found.value, found.run_id, found.updated_at) == (document, "run-2", later(1))


def test_pointers_set_at_once_hold_one_whole_document(database: OpsDatabase, url: str) -> None:
    documents = [{"a": number, "b": number} for number in range(8)]
    run_at_once(
        url,
        [
            partial(set_accepted, document=document, run_id=f"run-{document['a']}")
            for document in documents
        ],
    )
    found = get_pointer(database, "churn", "accepted")
    assert found is not None
    assert found.value in documents
    assert found.run_id == f"run-{found.value['a']}"


def set_accepted(database: OpsDatabase, document: dict[str, int], run_id: str) -> None:
    set_pointer(database, "churn", "accepted", document, run_id=run_id, now=NOON)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), NOON, {1, 2}])
def test_pointer_with_value_that_is_not_json_is_refused(
    database: OpsDatabase, value: object
) -> None:
    with pytest.raises(StateError, match="not plain JSON"):
        set_pointer(database, "churn", "accepted", {"x": value}, run_id="run-1", now=NOON)
    assert get_pointer(database, "churn", "accepted") is None


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2024, 5, 1, 12, 30, 15, 123457, tzinfo=UTC),
        datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=-7, minutes=-30))),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
)
def test_timestamp_comes_back_equal_and_in_utc(database: OpsDatabase, moment: datetime) -> None:
    set_pointer(database, "churn", "accepted", {}, run_id="run-1", now=moment)
    found = get_pointer(database, "churn", "accepted")
    assert found is not None
    assert found.updated_at == moment
    assert found.updated_at.tzinfo is UTC


def test_timestamp_without_time_zone_is_refused(database: OpsDatabase) -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(StateError, match="without a time zone"):
        set_pointer(database, "churn", "accepted", {}, run_id="run-1", now=naive)
