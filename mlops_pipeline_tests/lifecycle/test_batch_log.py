"""Batch scores are answers of the log, each once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_pipeline.lifecycle.batch_log import CALLER
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.predictions import predictions_uri
from mlops_pipeline.stores.predictions import PredictionLog
from mlops_pipeline.stores.reviews import distances
from mlops_pipeline_tests.lifecycle.compliance.test_fairness_audits import score, work, world
from mlops_pipeline_tests.worlds import NOW, on, stored_rows, utc

__all__ = ["work", "world"]


@pytest.fixture
def log(work: Context) -> Iterator[PredictionLog]:
    with PredictionLog(work.settings.predictions_url) as opened:
        yield opened


def test_scores_of_a_period_are_in_the_log_with_their_features(
    work: Context, log: PredictionLog
) -> None:
    score(work, 2)
    uri = predictions_uri(work.lake, work.use_case)
    table = stored_rows(work, uri, "customer")
    ids = distances(log, "shop", 0)
    assert len(ids) == len(table)
    logged = {one.entity: one for name, _ in ids if (one := log.find(name)) is not None}
    for row in table:
        one = logged[str(row["customer"])]
        assert (one.probability, one.decision) == (row["probability"], row["decision"])
        assert (one.caller, one.role, one.model_version) == (CALLER, "champion", 1)
        assert one.feature_time_us == int(utc(on(2)).timestamp()) * 1_000_000
        assert one.at_us == int(NOW.timestamp()) * 1_000_000
        assert set(one.features) == {"visits"}


def test_second_run_and_one_after_a_kill_write_nothing_twice(
    work: Context, log: PredictionLog, tmp_path: Path
) -> None:
    score(work, 2)
    once = distances(log, "shop", 0)
    score(work, 2)
    assert distances(log, "shop", 0) == once
    uri = Path(predictions_uri(work.lake, work.use_case))
    uri.rename(tmp_path / "as if it had been killed before the table was written")
    with log.transaction(writes=True) as connection:  # and before its last rows were logged
        connection.exec_driver_sql(f"DELETE FROM prediction WHERE id = '{once[0][0]}'")
    score(work, 2)
    assert distances(log, "shop", 0) == once
    score(work, 2, version=2)
    assert len(distances(log, "shop", 0)) == 2 * len(once)
