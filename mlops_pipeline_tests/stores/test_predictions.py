"""The log of predictions, on SQLite and PostgreSQL: whole, once, and there after a kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_pipeline.errors import PredictionLogError, RequestConflictError
from mlops_pipeline.stores.ops.declarations import UnstorableValueError
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog, ShadowScore
from mlops_pipeline_tests.stores.ops.conftest import postgres_schema_url

__all__ = ["postgres_schema_url"]

ONE = LoggedPrediction(
    id="p1",
    use_case="shop",
    entity="17",
    at_us=1_700_000_000_000_000,
    caller="(none)",
    request_id="r1",
    place=0,
    request_digest="d",
    model_version=3,
    role="champion",
    probability=0.1 + 0.2,
    decision=True,
    threshold=0.2,
    needs_review=False,
    reasons=["a reason"],
    features={"visits": 3, "kind": "web", "spent": None, "is_new": True},
    feature_time_us=None,
    latency_us=417,
)
KILLED = """
import os, signal, sys
from dataclasses import replace
from mlops_pipeline.stores.predictions import PredictionLog
from mlops_pipeline_tests.stores.test_predictions import ONE
log = PredictionLog(sys.argv[1], durability=sys.argv[2])
for number in range(10_000):
    log.append([replace(ONE, id=f"p{number}", request_id=f"r{number}")]).result()
    print(number, flush=True)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'predictions.db'}"
    shared = str(request.getfixturevalue("postgres_schema_url"))
    with PredictionLog(shared) as log, log._engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE prediction CASCADE")
    return shared


@pytest.fixture
def log(url: str) -> Iterator[PredictionLog]:
    with PredictionLog(url) as opened:
        yield opened


def test_row_comes_back_as_it_was_also_in_another_process(url: str, log: PredictionLog) -> None:
    log.append([ONE]).result()
    with PredictionLog(url) as again:
        assert again.find("p1") == ONE
        assert again.find("p2") is None
        assert again.of_request("shop", "(none)", "r1") == [ONE]


def test_rows_of_a_request_are_stored_together_or_not_at_all(log: PredictionLog) -> None:
    log.append([ONE]).result()
    second = [
        replace(ONE, id="p2", request_id="r2"),
        replace(ONE, id="p1", request_id="r2", place=1),
    ]
    with pytest.raises(RequestConflictError):
        log.append(second).result()
    assert log.of_request("shop", "(none)", "r2") == []


def test_request_that_comes_many_times_at_once_is_stored_once(log: PredictionLog) -> None:
    rows = [replace(ONE, id=f"p{number}") for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda row: log.append([row]).exception(), rows))
    assert sum(error is None for error in said) == 1
    assert {type(error) for error in said if error} == {RequestConflictError}
    assert len(log.of_request("shop", "(none)", "r1")) == 1


def test_row_that_cannot_be_stored_keeps_none_of_the_others(log: PredictionLog) -> None:
    bad = replace(ONE, id="p2", request_id="r2", features={"spent": float("nan")})
    futures = [log.append([row]) for row in (ONE, bad, replace(ONE, id="p3", request_id="r3"))]
    assert [type(future.exception()) for future in futures] == [
        type(None),
        UnstorableValueError,
        type(None),
    ]


def test_connection_that_broke_while_idle_is_replaced(postgres_schema_url: str) -> None:
    named = "&" if "?" in postgres_schema_url else "?"
    with PredictionLog(f"{postgres_schema_url}{named}application_name=test_broken") as log:
        log.append([replace(ONE, id="b1", request_id="b1")]).result()
        with log._engine.connect() as other:
            ended = other.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query = 'COMMIT' AND datname = current_database()"
                " AND application_name = 'test_broken'"
            )
            assert ended.all()
        log.append([replace(ONE, id="b2", request_id="b2")]).result()
        assert log.find("b2") is not None


def test_who_is_forgotten_has_no_rows(log: PredictionLog) -> None:
    others = [replace(ONE, id=f"p{n}", request_id=f"r{n}", entity=str(n)) for n in (2, 3)]
    for row in (ONE, *others, replace(ONE, id="other", use_case="till")):
        log.append([row]).result()
    assert log.count("shop", "17") == 1
    assert log.forget("shop", "17") == 1
    assert [log.find(name) is None for name in ("p1", "p2", "other")] == [True, False, False]


def test_log_that_is_away_is_one_typed_error_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(PredictionLogError, match="cannot be used") as caught:
        PredictionLog("postgresql://user:sekret@127.0.0.1:1/none?connect_timeout=1")
    assert "sekret" not in str(caught.value)
    log = PredictionLog(f"sqlite:///{tmp_path / 'log.db'}")
    log.close()
    with pytest.raises(PredictionLogError, match="closed"):
        log.append([ONE])


def test_file_that_is_deleted_is_made_anew_and_nothing_is_written_to_the_old(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    with PredictionLog(f"sqlite:///{path}") as log:
        log.append([ONE]).result()
        for file in tmp_path.glob("log.db*"):
            file.unlink()
        log.append([replace(ONE, id="p2", request_id="r2")]).result()
    with PredictionLog(f"sqlite:///{path}") as again:
        assert [again.find(name) is None for name in ("p1", "p2")] == [True, False]


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_nothing_that_was_acknowledged_is_lost_in_a_kill(url: str, durability: str) -> None:
    command = [sys.executable, "-c", KILLED, url, durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(40)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split()]
    with PredictionLog(url) as log:
        assert all(log.find(f"p{number}") is not None for number in acknowledged)
        assert log.find(f"p{acknowledged[-1] + 2}") is None


def test_row_is_synced_to_the_disk_before_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for durability, expected in {"disk": 2, "process": 0}.items():  # 2: FULL, waits for the disk
        url = f"sqlite:///{tmp_path / durability}.db"
        opened = PredictionLog(url, durability=durability)  # type: ignore[arg-type] # of the loop
        with opened as log, log._engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA synchronous").scalar()
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        assert (found, mode) == (expected, "wal")


SCORE = ShadowScore(
    prediction_id="p1",
    use_case="shop",
    entity="17",
    at_us=ONE.at_us,
    version=4,
    probability=0.25,
    decision=True,
    threshold=0.2,
    is_default=False,
    failure=None,
    latency_us=99,
)


def test_score_is_stored_once_and_only_beside_an_answer(log: PredictionLog) -> None:
    log.append([ONE]).result()
    nobodys = replace(SCORE, prediction_id="p9")
    log.append_shadows([nobodys, SCORE]).result()
    log.append_shadows([replace(SCORE, probability=0.5)]).result()
    assert log.shadows("shop") == [SCORE]
    assert log.shadows("till") == []


def test_score_is_forgotten_with_its_answer(log: PredictionLog) -> None:
    log.append([ONE]).result()
    log.append_shadows([SCORE]).result()
    assert log.forget("shop", "17") == 1
    assert log.shadows("shop") == []
    log.append_shadows([SCORE]).result()
    assert log.shadows("shop") == []


def test_log_of_an_older_version_gets_the_columns_that_it_lacks(url: str) -> None:
    with PredictionLog(url) as log, log.transaction(writes=True) as connection:
        connection.exec_driver_sql("ALTER TABLE prediction DROP COLUMN latency_us")
    with PredictionLog(url) as log:
        log.append([ONE]).result()
        assert log.find("p1") == ONE
