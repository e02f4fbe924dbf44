"""The chain, end to end, through Dagster's own command line."""

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.core.documents.records import (
    EvaluatedTraining,
    from_plain,
    validate_metadata,
)
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import (
    NEWEST,
    get_pointer,
    last_finished_lifecycle,
    last_lifecycle,
    list_decisions,
    set_pointer,
    step_seconds,
)
from mlops_pipeline.lifecycle.compliance.anchors import verify_audit
from mlops_pipeline.lifecycle.exceptions import grant_exception
from mlops_pipeline.lifecycle.rollouts import (
    find_champion,
    get_rollout,
    list_approvals,
    list_rollouts,
)
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import LifecycleRun
from mlops_pipeline.stores.ops.lease import get_lease
from mlops_pipeline_tests.world import FIRST, LATER, World

PRELOADED = {"forkserver": {"preload_modules": ["mlops_pipeline.orchestration.build"]}}


def _documents(world: World) -> Path:
    (folder,) = world.artifacts.glob("*-release")
    return folder


# the first run


def test_run_logs_what_it_cost(template: World) -> None:
    logged = dict(template.mlflow("SELECT key, value FROM latest_metrics WHERE key LIKE 'life%'"))
    seconds = float(logged["lifecycle_seconds"])
    assert seconds > 0
    assert float(logged["lifecycle_cost"]) == pytest.approx(seconds * 0.36 / 3600)
    page = (_documents(template) / "report.html").read_text()
    assert "no version was accepted" in page
    assert re.search(r"cost per training run up to here.{0,40}0\.\d{4} EUR", page, re.S)
    unit_costs = dict(
        template.mlflow("SELECT key, value FROM latest_metrics WHERE key LIKE 'cost_%'")
    )
    assert set(unit_costs) == {"cost_per_training_run", "cost_per_accepted_version"}
    assert all(0 < float(value) < 1 for value in unit_costs.values())
    assert re.search(r"cost of the run up to here.{0,40}0\.\d{4} EUR \([1-9]\d* s\)", page, re.S)


def test_first_accepted_model_is_champion(template: World) -> None:
    with template.ops() as ops:
        champion = find_champion(ops, "churn")
        lifecycle = last_finished_lifecycle(ops, "churn")
        seconds = step_seconds(ops, "churn", lifecycle.run_id if lifecycle else "")
        promotions = list_decisions(ops, "churn", kind="promotion")
        assert get_lease(ops, "lifecycle:churn") is None
    assert champion is not None
    assert lifecycle is not None
    assert (champion.version, champion.dagster_run_id) == (1, lifecycle.run_id)
    assert (lifecycle.verdict, lifecycle.as_of.date().isoformat()) == ("champion", FIRST)
    assert promotions[0].action == "champion"
    assert {"raw_data", "features", "trained_model", "deployment"} <= set(seconds)
    assert _aliases(template) == {"champion": "1"}


def test_lifecycle_runs_in_process_by_default(template: World) -> None:
    assert "Executing steps in process" in (template.root / "run-0.log").read_text()


def test_registered_version_has_a_valid_document_whose_links_exist(template: World) -> None:
    document = json.loads((_documents(template) / "metadata.json").read_text())
    validate_metadata(document)
    assert document["provenance"]["git_commit"] == "0123abc"
    for key in ("evaluation_report_uri", "model_card_uri", "input_example_uri", "artifact_uri"):
        assert Path(document[key]).exists(), key
    for key in ("dataset_snapshot_uri", "environment_lockfile_uri"):
        assert Path(document["provenance"][key]).is_file(), key


def test_mlflow_holds_one_finished_run_with_its_candidates(template: World) -> None:
    runs = template.mlflow("SELECT name, status FROM runs ORDER BY name")
    assert runs == [
        ("churn_lifecycle", "FINISHED"),
        ("large", "FINISHED"),
        ("small", "FINISHED"),
    ]


# the same again


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
def test_same_run_again_with_three_threads_keeps_version_and_bytes(
    template: World, world: World
) -> None:
    shutil.rmtree(world.data / "lake" / "churn" / "features")
    world.forget_registration()

    world.lifecycle(threads=3)

    assert world.complete_versions() == [1]
    assert world.trained_files() == template.trained_files()
    assert (
        _pointer(world, "features")["content_hash"]
        == (_pointer(template, "features")["content_hash"])
    )
    assert (_documents(world) / "metadata.json").is_file()
    found = [str(problem) for problem in verify_audit(world.settings)[0].problems]
    assert [text for text in found if "/features/" in text] == []  # pinned as it is made anew
    with world.ops() as ops:
        lifecycles = ops.all(LifecycleRun, order=NEWEST, use_case="churn")
        states = [item.state for item in list_rollouts(ops, "churn")]
    assert [item.verdict for item in lifecycles] == ["champion", "champion"]
    assert lifecycles[0].fingerprint == lifecycles[1].fingerprint
    assert states == ["champion"]


def test_run_again_of_what_is_registered_changes_no_evidence(template: World, world: World) -> None:
    folder = world.artifacts / _pointer(world, "trained_model")["fingerprint"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes())
              for path in folder.rglob("*") if path.is_file()}  # fmt: skip
    runs = world.mlflow("SELECT count(*) FROM runs")

    done = world.lifecycle()

    assert done.has_said("its evidence is final")
    after = {path: (path.stat().st_mtime_ns, path.read_bytes())
             for path in folder.rglob("*") if path.is_file()}  # fmt: skip
    assert after == before
    assert world.mlflow("SELECT count(*) FROM runs") == runs
    judged = [_pointer(item, "evaluation") for item in (template, world)]
    assert judged[0]["needs_review"] == judged[1]["needs_review"]
    assert world.complete_versions() == [1]


def test_run_killed_between_complete_and_the_pointer_keeps_the_evidence_of_its_version(
    world: World,
) -> None:
    folder = world.artifacts / _pointer(world, "trained_model")["fingerprint"]
    pin = _pointer(world, f"release/{folder.name}")
    world.forget_registration()  # so much is there when a version is just complete
    with world.ops() as ops:
        set_pointer(
            ops, "churn", f"release/{folder.name}", pin, run_id="run", now=world.settings.now()
        )
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    done = world.lifecycle()

    assert done.has_said("its evidence is final")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with world.ops() as ops:
        champion = find_champion(ops, "churn")
    assert champion is not None
    assert (world.complete_versions(), champion.version) == ([1], 1)


@pytest.mark.campaign
def test_multiprocess_run_gives_the_same_model(template: World, world: World) -> None:
    world.forget_registration()
    done = world.run(
        assets=["features", "trained_model"],
        ops={"features": {"as_of": FIRST}},
        execution={"multiprocess": {"max_concurrent": 2, "start_method": PRELOADED}},
    )

    assert done.has_said("Executing steps using multiprocess executor")
    assert world.trained_files() == template.trained_files()
    assert world.mlflow("SELECT name FROM runs WHERE status <> 'FINISHED'") == []
    with world.ops() as ops:  # it lingered for the second process, and is free after it
        assert get_lease(ops, "lifecycle:churn") is None


# refusals and people


def test_refused_model_leaves_a_green_run_and_no_champion(world: World) -> None:
    (world.data / "ops.db").unlink()
    shutil.rmtree(world.data / "audit")  # the anchors of the chain that went with it
    world.configure(_impossible)

    done = world.lifecycle()

    assert done.has_said("the gate refused the model: no champion")
    assert done.has_said("roc_auc at least 0.999")
    assert not done.has_said('Started execution of step "churn__deployment"')
    assert world.complete_versions() == [1]  # the one from before
    assert world.incomplete_versions() == []
    with world.ops() as ops:
        assert find_champion(ops, "churn") is None
        lifecycle = last_finished_lifecycle(ops, "churn")
        assert list_alerts(ops, "churn") == []
    assert lifecycle is not None
    assert lifecycle.verdict == "refused"

    failed = world.start(
        assets=["registry_entry"], ops={"registry_entry": {"on_rejection": "fail"}}
    )
    assert failed.wait() != 0
    assert failed.has_said("the gate refused the model: no champion")


def test_failed_blocking_rule_with_an_exception_is_let_through_and_says_so(world: World) -> None:
    world.configure(_impossible)
    with world.ops() as ops:
        grant_exception(
            ops,
            "churn",
            "metric:roc_auc",
            by="Ann",
            reason="a test",
            expires_at=datetime(9999, 1, 1, tzinfo=UTC),
            now=world.settings.now(),
        )
    done = world.run(assets=["trained_model", "evaluation_report"])
    judged = _pointer(world, "evaluation")
    assert (judged["passed"], judged["needs_review"]) == (True, True)
    assert done.has_said("gate [block] roc_auc at least 0.999")
    folder = world.artifacts / _pointer(world, "trained_model")["fingerprint"]
    gate = _evaluated(folder).gate
    assert (gate.rules[0].outcome, gate.rules[0].excepted) == ("failed", True)
    assert "excepted by Ann until 9999-01-01: a test" in (folder / "report.html").read_text()


def test_on_rejection_has_only_two_values(world: World) -> None:
    run = world.start(assets=["registry_entry"], ops={"registry_entry": {"on_rejection": "fial"}})
    assert run.wait() != 0
    assert run.has_said("on_rejection")
    assert not run.has_said("STEP_START")


def test_challenger_waits_for_a_person_who_can_go_back_to_the_one_before(
    world: World, tmp_path: Path
) -> None:
    world.lifecycle(LATER)

    with world.ops() as ops:
        champion, newer = find_champion(ops, "churn"), get_rollout(ops, "churn", 2)
        lifecycle = last_finished_lifecycle(ops, "churn")
    assert champion is not None
    assert lifecycle is not None
    assert (champion.version, newer.state) == (1, "awaiting_approval")
    assert newer.waiting_for == "customer-analytics"
    card = _mlops(world, "card", "churn", "2")
    assert "State: waiting for a person's approval; not in use" in card
    assert "- Compared with version 1." in card
    assert f"- Data as of {LATER} instead of {FIRST}." in card
    assert "- Same configuration." in card
    assert lifecycle.verdict == "awaiting approval"
    assert _aliases(world) == {"champion": "1", "challenger": "2"}

    rejected = world.copy_to(tmp_path / "rejected")
    output = _mlops(rejected, "reject", "churn", "2", "--by", "Ann", "--reason", "no")
    assert "churn version 2: rejected" in output
    assert _aliases(rejected) == {"champion": "1"}

    output = _mlops(world, "approve", "churn", "2", "--by", "Ann", "--reason", "good")
    assert "churn version 2: champion" in output
    assert _aliases(world) == {"champion": "2", "previous": "1"}
    with world.ops() as ops:
        (approval,) = list_approvals(ops, "churn")
        assert (approval.by, approval.reason, approval.verdict) == ("Ann", "good", "approved")

    done = world.command("mlops", "rollback", "churn", "--by", "Ann", "--reason", "scores doubled")
    assert done.wait() == 0, done.text()
    assert done.has_said("churn version 1: champion again; recorded: Ann: scores doubled")
    assert _aliases(world) == {"champion": "1"}
    with world.ops() as ops:
        (decision,) = list_decisions(ops, "churn", kind="rollback")
    assert decision.evidence == {"from_version": 2, "to_version": 1}
    assert world.command("mlops", "audit", "verify").wait() == 0


# one asset at a time


def test_after_a_failed_validation_features_use_the_accepted_versions(world: World) -> None:
    accepted = _pointer(world, "accepted")
    world.configure(_too_few_accounts)

    failed = world.start(ops={"features": {"as_of": LATER}})

    assert failed.wait() != 0
    assert not failed.has_said('Started execution of step "churn__features"')
    assert _pointer(world, "accepted") == accepted
    with world.ops() as ops:
        (alert,) = list_alerts(ops, "churn", open_only=True)
    assert (alert.kind, alert.times_raised) == ("run_failed", 1)
    assert alert.message.startswith("validated_data: ")
    assert "min_rows" in alert.message
    line = next(
        text for text in failed.text().splitlines() if "churn/validated_data failed" in text
    )
    assert alert.action in line

    world.run(assets=["features"], ops={"features": {"as_of": LATER}})
    assert _pointer(world, "features")["as_of"].startswith(LATER)
    with world.ops() as ops:
        assert get_lease(ops, "lifecycle:churn") is None  # the next click need not wait
        assert last_lifecycle(ops, "churn") == last_finished_lifecycle(ops, "churn")


def test_batch_score_is_idempotent_by_period(world: World) -> None:
    period = {"batch_predictions": {"period": "2024-02-01"}}
    world.run(job="churn_batch_score", ops=period)
    world.run(job="churn_batch_score", ops=period)

    lake = Lake(world.settings.lake_uri)
    (commit,) = lake.commit_metadata(lake.table_uri("churn", "predictions"))
    assert (commit["period"], commit["model_version"]) == ("2024-02-01", 1)
    assert commit["rows"] > 500
    _check_reasons(world, commit["rows"])


def _check_reasons(world: World, rows: int) -> None:
    from deltalake import DeltaTable

    lake = Lake(world.settings.lake_uri)
    table = DeltaTable(lake.table_uri("churn", "predictions")).to_pyarrow_table()
    found = table.select(["decision", "reasons"]).to_pylist()
    assert len(found) == rows
    named = {reason["feature"] for row in found for reason in row["reasons"]}
    assert named <= set(world.use_case.features)  # of which none tells a protected attribute
    for row in found:
        sizes = [abs(reason["contribution"]) for reason in row["reasons"]]
        assert 1 <= len(sizes) <= 3
        assert sizes == sorted(sizes, reverse=True)
        verb = "raises" if row["decision"] else "lowers"
        for reason in row["reasons"]:
            assert reason["text"].endswith(f" ({verb} the score)")
            assert (reason["contribution"] > 0) == row["decision"]


def _pointer(world: World, name: str) -> Any:
    with world.ops() as ops:
        found = get_pointer(ops, "churn", name)
    assert found is not None
    return found.value


def _evaluated(folder: Path) -> EvaluatedTraining:
    return from_plain(EvaluatedTraining, json.loads((folder / "evaluation.json").read_text()))


def _aliases(world: World) -> dict[str, str]:
    return {
        str(alias): str(version)
        for alias, version in world.mlflow("SELECT alias, version FROM registered_model_aliases")
    }


def _mlops(world: World, *words: str) -> str:
    done = world.command("mlops", *words)
    assert done.wait() == 0, done.text()
    return done.text()


def _impossible(document: dict[str, Any]) -> None:
    document["gates"][0]["at_least"] = 0.999


def _too_few_accounts(document: dict[str, Any]) -> None:
    document["sources"]["accounts"]["rules"][0]["at_least"] = 1_000_000
