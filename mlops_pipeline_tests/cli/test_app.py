"""The command line: documents that scripts rely on, messages, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlops_pipeline.cli.app import main
from mlops_pipeline.errors import MlopsError
from mlops_pipeline.stores.ops import LifecycleRun
from mlops_pipeline_tests.cli.conftest import Mlops
from mlops_pipeline_tests.world import World


def _main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mlops", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


# status


def test_status_json_has_stable_keys(mlops: Mlops) -> None:
    done = mlops("status", "churn", "--json")
    assert done.exit_code == 0
    document = json.loads(done.output)
    assert list(document) == [
        "use_case",
        "champion",
        "trial",
        "waiting",
        "last_gate",
        "exceptions",
        "data",
        "last_run",
        "cost",
        "alerts",
    ]
    champion = document["champion"]
    assert list(champion) == ["version", "since", "metrics", "approval_expires", "approval_ended"]
    assert list(champion["metrics"]) == ["roc_auc", "pr_auc", "log_loss", "brier"]
    for figure in champion["metrics"].values():
        low, high = figure["interval"]
        assert low <= figure["value"] <= high
    gate = document["last_gate"]
    assert gate["passed"] is True
    assert {tuple(rule) for rule in gate["rules"]} == {
        ("name", "value", "threshold", "outcome", "effect", "reason", "excepted")
    }
    assert document["data"]["accounts"] == {"version": 0, "rows": 1500, "quarantined": 0}
    assert list(document["last_run"]) == [
        "run_id",
        "as_of",
        "trigger",
        "started_at",
        "finished_at",
        "verdict",
        "state",
        "seconds",
    ]
    assert document["alerts"] == []


def test_status_json_without_a_run_says_null(in_world: World, mlops: Mlops) -> None:
    (in_world.data / "ops.db").unlink()
    document = json.loads(mlops("status", "churn", "--json").output)
    assert document["champion"] is None
    assert document["last_gate"] is None
    assert document["last_run"] is None
    assert document["data"] == {}


def test_status_for_people_names_champion_gate_and_data(mlops: Mlops) -> None:
    done = mlops("status", "churn")
    assert done.exit_code == 0
    for text in ("champion: version 1", "gate: passed", "roc_auc at least 0.5", "weekly_usage"):
        assert text in done.output


# exceptions from gate rules

GRANT = ("exception", "grant", "churn", "--rule", "metric:roc_auc", "--by", "Ann [x]")


def test_exception_is_granted_listed_shown_and_revoked(mlops: Mlops) -> None:
    assert "has no exception" in mlops("exception", "list", "churn").output
    done = mlops(*GRANT, "--reason", "a [test]", "--expires", "9999-01-01")
    assert done.exit_code == 0, done.output
    said = "exception 1, metric:roc_auc: excepted by Ann [x] until 9999-01-01: a [test]"
    assert said in done.output
    assert "in force" in mlops("exception", "list", "churn").output
    assert "exception 1 from metric:roc_auc until 9999-01-01" in mlops("status", "churn").output
    (shown,) = json.loads(mlops("status", "churn", "--json").output)["exceptions"]
    assert (shown["id"], shown["by"], shown["attribute"]) == (1, "Ann [x]", None)

    done = mlops("exception", "revoke", "churn", "1", "--by", "Bob", "--reason", "done")
    assert "exception 1, metric:roc_auc: revoked by Bob" in done.output
    assert "revoked by Bob:" in mlops("exception", "list", "churn").output
    assert json.loads(mlops("status", "churn", "--json").output)["exceptions"] == []


def test_exception_from_a_rule_that_is_not_there_exits_1(
    in_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fairnes" if word == "metric:roc_auc" else word for word in GRANT]
    assert _main(monkeypatch, *words, "--reason", "x", "--expires", "9999-01-01") == 1
    assert "expected: a rule that blocks: metric:roc_auc" in capsys.readouterr().err


# errors


def test_unknown_use_case_exits_1_with_the_nearest(
    in_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "status", "chrun") == 1
    said = capsys.readouterr().err
    assert "error: there is no use case 'chrun'" in said
    assert "did you mean 'churn'?" in said


def test_approving_what_does_not_wait_exits_1(
    in_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("approve", "churn", "1", "--by", "Ann", "--reason", "good")
    assert _main(monkeypatch, *words) == 1
    said = capsys.readouterr().err
    assert "Version 1 of churn cannot be approved now." in said
    assert "found: state champion" in said


def test_on_rejection_with_a_typo_exits_1(
    in_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "run", "churn", "--on-rejection", "fial") == 1
    assert "expected: keep or fail" in capsys.readouterr().err


def test_as_of_that_is_no_date_exits_1_before_a_run_starts(
    in_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "run", "churn", "--as-of", "2024-02-30") == 1
    assert "'2024-02-30'" in capsys.readouterr().err
    with in_world.ops() as ops:
        assert len(ops.all(LifecycleRun, use_case="churn")) == 1


def test_missing_option_exits_2(mlops: Mlops) -> None:
    assert mlops("approve", "churn", "1", "--by", "Ann").exit_code == 2


# config


def test_config_check_lists_every_use_case(mlops: Mlops) -> None:
    done = mlops("config", "check")
    assert done.exit_code == 0
    assert "churn: 10 features from 4 sources" in done.output
    assert "label: known 60 + 0 days after as_of" in done.output


def test_config_check_refuses_to_lose_a_feature_of_the_champion(
    in_world: World, mlops: Mlops
) -> None:
    in_world.configure(lambda document: document["views"]["support"]["columns"].popitem())
    done = mlops("config", "check")
    assert done.exit_code == 1
    assert "is an input of churn version 1 (champion)" in str(done.exception)


def test_config_check_names_a_typo(in_world: World, mlops: Mlops) -> None:
    def misspell(document: dict[str, object]) -> None:
        document["grids"] = document.pop("grid")

    in_world.configure(misspell)
    done = mlops("config", "check", "configs/churn.yaml")
    assert isinstance(done.exception, MlopsError)
    message = str(done.exception)
    assert "configs/churn.yaml: " in message
    assert "grid" in message


def test_config_schema_is_a_json_schema(mlops: Mlops) -> None:
    document = json.loads(mlops("config", "schema").output)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"name", "sources", "label", "views"} <= set(document["properties"])


# data and the module


def test_simulate_writes_the_same_world_twice(in_world: World, mlops: Mlops) -> None:
    words = ("simulate", "churn", "--customers", "40", "--months", "6", "--seed", "3")
    folder = in_world.data / "sources" / "churn"
    assert mlops(*words).exit_code == 0
    first = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    done = mlops(*words)
    assert "40 customers, 6 months" in done.output
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == first
    assert pq.read_table(folder / "accounts.parquet").num_rows == 40


def test_python_m_mlops_pipeline_is_the_same_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlops_pipeline", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    for command in ("simulate", "fetch", "run", "score", "approve", "reject", "status", "config"):
        assert command in done.stdout
