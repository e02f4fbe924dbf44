from functools import partial

from mlops_pipeline.lifecycle.bookkeeping import feature_uses, record_feature_use
from mlops_pipeline.stores.ops import FeatureUse, OpsDatabase
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later


def test_feature_never_used_has_no_row(database: OpsDatabase) -> None:
    assert feature_uses(database, "churn") == []


def test_feature_used_again_keeps_the_first_time_and_moves_the_last(database: OpsDatabase) -> None:
    record_feature_use(database, "churn", ["plan", "spent"], "training", now=NOON)
    record_feature_use(database, "churn", ["plan"], "training", now=later(5))
    record_feature_use(database, "shop", ["plan"], "training", now=later(9))
    assert feature_uses(database, "churn") == [
        FeatureUse("churn", "plan", "training", NOON, later(5)),
        FeatureUse("churn", "spent", "training", NOON, NOON),
    ]


def test_feature_used_by_two_readers_has_a_row_for_each(database: OpsDatabase) -> None:
    record_feature_use(database, "churn", ["plan"], "training", now=NOON)
    record_feature_use(database, "churn", ["plan"], "online", now=later(1))
    readers = [(use.reader, use.last_used_at) for use in feature_uses(database, "churn")]
    assert readers == [("online", later(1)), ("training", NOON)]


def test_feature_use_of_an_earlier_time_moves_nothing(database: OpsDatabase) -> None:
    record_feature_use(database, "churn", ["plan"], "online", now=later(60))
    record_feature_use(database, "churn", ["plan", "plan"], "online", now=NOON)
    (use,) = feature_uses(database, "churn")
    assert (use.first_used_at, use.last_used_at) == (later(60), later(60))


def test_feature_use_of_no_feature_writes_nothing(database: OpsDatabase) -> None:
    record_feature_use(database, "churn", [], "online", now=NOON)
    assert feature_uses(database, "churn") == []


def test_feature_uses_at_once_keep_the_newest(database: OpsDatabase, url: str) -> None:
    run_at_once(url, [partial(use_features, seconds=number) for number in range(8)])
    assert [use.last_used_at for use in feature_uses(database, "churn")] == [later(7), later(7)]


def use_features(database: OpsDatabase, seconds: int) -> None:
    record_feature_use(database, "churn", ["plan", "spent"], "online", now=later(seconds))
