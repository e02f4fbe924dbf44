"""`mlops features`: what is printed, documents, messages."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from mlops_pipeline.cli.app import app
from mlops_pipeline.cli.console import console
from mlops_pipeline.errors import DataError, MlopsError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.serving.conftest import shops
from mlops_pipeline_tests.serving.shops import SHOP_CASE, settings_at
from mlops_pipeline_tests.worlds import NOW, on

__all__ = ["shops"]

Mlops = Callable[..., Result]


@pytest.fixture
def mlops(shops: Path, monkeypatch: pytest.MonkeyPatch) -> Mlops:
    monkeypatch.chdir(shops)
    monkeypatch.setenv("MLOPS_DATA_DIR", str(shops / "data"))
    monkeypatch.setenv("MLOPS_NOW", NOW.isoformat())
    monkeypatch.setattr(console, "width", 200)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, ["features", *words], catch_exceptions=True)

    return invoke


def error_of(done: Result) -> MlopsError:
    assert isinstance(done.exception, MlopsError), done.output
    return done.exception


# list


def test_list_shows_every_feature_with_its_view_and_owner(mlops: Mlops) -> None:
    done = mlops("list", "shop")
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line.split() for line in done.output.splitlines() if line.strip()}
    assert lines["customer:visits"] == [
        *("customer:visits", "int64", "history", "month", "10", "d", "shop-data", "How", "often."),
    ]
    assert {f"customer:{name}" for name in SHOP_CASE.features} <= set(lines)


def test_list_names_what_nobody_used(mlops: Mlops, shops: Path) -> None:
    then = NOW - timedelta(days=100)
    with OpsDatabase.open(settings_at(shops).database_url) as ops:
        record_feature_use(ops, "till", ["spent_30d", "amount_now"], "computation", now=then)
        record_feature_use(ops, "till", ["amount_now"], "online", now=NOW)
    said = mlops("list", "till").output
    closing = said[said.index("unused for 90 days, candidates") :].split()
    assert "customer:spent_30d" in closing
    assert "customer:amount_now" not in closing
    assert "no feature is unused for 101" in mlops("list", "till", "--unused-days", "101").output


def test_list_json_is_the_catalogue(mlops: Mlops) -> None:
    document = json.loads(mlops("list", "shop", "--json").output)
    assert list(document) == ["use_case", "features", "unused_days", "unused"]
    assert document["features"][0]["name"] == "customer:visits"
    assert document["features"][0]["freshness_days"] == 10
    assert (document["unused_days"], document["unused"]) == (90, [])


# history


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_history_writes_the_features_of_the_rows(mlops: Mlops, tmp_path: Path, kind: str) -> None:
    rows = tmp_path / f"asked.{kind}"
    asked = pa.table({"customer": [2, 1, 9], "as_of": [on(6), on(4, 1), on(6)], "why": [*"abc"]})
    pq.write_table(asked, rows) if kind == "parquet" else pa_csv.write_csv(asked, rows)
    done = mlops("history", "shop", "--rows", str(rows), "--features", "visits, customer:spent")
    assert done.exit_code == 0, done.output
    out = tmp_path / "asked.features.parquet"
    assert done.output.strip() == f"3 rows with 2 features: {out}"
    found = pq.read_table(out).to_pydict()
    assert (found["visits"], found["spent"]) == ([2, 1, 0], [10.0, 10.0, None])
    assert found["why"] == [*"abc"]


def test_history_writes_where_it_is_told(mlops: Mlops, tmp_path: Path) -> None:
    rows, out = tmp_path / "asked.parquet", tmp_path / "answer.parquet"
    pq.write_table(pa.table({"customer": [1], "as_of": [on(6)]}), rows)
    words = ("--rows", str(rows), "--features", "visits", "--out", str(out))
    assert mlops("history", "shop", *words).exit_code == 0
    assert pq.read_table(out).to_pydict()["visits"] == [2]


def test_history_of_an_unknown_feature_names_the_nearest(mlops: Mlops, tmp_path: Path) -> None:
    rows = tmp_path / "asked.parquet"
    pq.write_table(pa.table({"customer": [1], "as_of": [on(6)]}), rows)
    error = error_of(mlops("history", "shop", "--rows", str(rows), "--features", "vists"))
    assert "did you mean 'customer:visits'?" in str(error)


# get


def test_get_shows_value_status_and_feature_time(mlops: Mlops) -> None:
    done = mlops("get", "customer", "1", "visits,spent_a_visit")
    assert done.exit_code == 0, done.output
    head, _, *lines = done.output.splitlines()
    assert head == f"customer 1 of shop, read at {NOW.isoformat()}"
    assert [line.split() for line in lines] == [
        ["visits", "2", "fresh", NOW.isoformat()],
        ["spent_a_visit", "6.25", "fresh", NOW.isoformat()],
    ]


def test_get_reads_as_of_a_time(mlops: Mlops) -> None:
    later = NOW + timedelta(days=11)
    words = ("get", "customer", "1", "visits", "--json", "--at", later.isoformat())
    document = json.loads(mlops(*words).output)
    assert document["read_at"] == later.isoformat()
    assert document["features"]["visits"]["status"] == "stale"


def test_get_takes_the_columns_of_a_request(mlops: Mlops) -> None:
    words = ("get", "customer", "2", "amount_to_habit", "--json", "--request", "amount=15")
    document = json.loads(mlops(*words).output)
    assert document["use_case"] == "till"
    assert document["features"]["amount_to_habit"]["value"] == 3.75


def test_get_without_features_reads_all_of_a_named_use_case(mlops: Mlops) -> None:
    document = json.loads(mlops("get", "customer", "1", "--use-case", "shop", "--json").output)
    assert set(document["features"]) == set(SHOP_CASE.features)


def test_get_where_several_use_cases_fit_says_which(mlops: Mlops) -> None:
    error = error_of(mlops("get", "customer", "1"))
    assert isinstance(error, DataError)
    assert "shop, till" in str(error)
    assert "--use-case" in str(error)


def test_get_of_an_unknown_id_says_so(mlops: Mlops) -> None:
    error = error_of(mlops("get", "customer", "99", "visits"))
    assert isinstance(error, NotFoundError)
    assert "the online store knows no customer of this id" in str(error)


def test_get_with_a_request_that_is_no_pair_says_how(mlops: Mlops) -> None:
    error = error_of(mlops("get", "customer", "2", "amount_now", "--request", "amount:15"))
    assert "COLUMN=VALUE" in str(error)


# materialize, export-feast


def test_materialize_writes_once(
    mlops: Mlops, shops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mlops("materialize", "shop")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == ["shop: nothing new", f"values of {NOW.isoformat()}"]
    monkeypatch.setenv("MLOPS_ONLINE_URL", f"sqlite:///{shops}/other.db")
    said = mlops("materialize", "till").output.splitlines()
    assert said[0] == "till: 2 entities and 3 events written"


def test_materialize_says_what_is_stale(mlops: Mlops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_NOW", (NOW + timedelta(days=11)).isoformat())
    said = mlops("materialize", "shop").output
    assert "stale: history is older than its freshness_days by now" in said


def test_materialize_before_the_first_run_says_what_to_do(
    mlops: Mlops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path))
    assert error_of(mlops("materialize", "shop")).way_out == "mlops run shop"


def test_export_feast_says_what_it_wrote(mlops: Mlops, tmp_path: Path) -> None:
    done = mlops("export-feast", "shop", str(tmp_path / "feast"))
    assert done.exit_code == 0, done.output
    assert "exported: history, " in done.output
    assert f"newest {NOW.isoformat()}" in done.output
    assert "unchanged: history, " in mlops("export-feast", "shop", str(tmp_path / "feast")).output


# what a process that serves must not pay for


@pytest.mark.parametrize(
    "words", [["config", "check"], ["features", "get", "customer", "1", "--use-case", "shop"]]
)
def test_light_command_loads_no_heavy_library(shops: Path, words: list[str]) -> None:
    script = (
        "import sys; from mlops_pipeline.cli.app import app; app(standalone_mode=False); "
        "print(sorted({'mlflow', 'sklearn', 'pandas', 'lightgbm'} & set(sys.modules)))"
    )
    settings = {"MLOPS_DATA_DIR": str(shops / "data"), "MLOPS_NOW": NOW.isoformat()}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *words],
        cwd=shops,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
