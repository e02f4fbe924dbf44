"""The audit chain of a real run: what it holds, its two kinds of anchors, and every tampering."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import (
    get_pointer,
    last_finished_lifecycle,
    record_configuration,
)
from mlops_pipeline.lifecycle.compliance.anchors import anchor_chain, anchors_file
from mlops_pipeline_tests.cli.conftest import Mlops
from mlops_pipeline_tests.world import World

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


def anchors(world: World) -> Path:
    return anchors_file(world.settings)


def database(world: World, *statements: str) -> None:
    """Change rows as the owner of the file can."""
    with closing(sqlite3.connect(world.data / "ops.db")) as connection, connection:
        for change in ("update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS audit_event_no_{change}")
        for statement in statements:
            connection.execute(statement)


def more_events(world: World, number: int) -> None:
    settings = world.settings
    with world.ops() as ops:
        for _ in range(number):
            ops.append_audit("test", {}, use_case="churn", actor="Ann", now=settings.now())


def anchor(world: World) -> None:
    with world.ops() as ops:
        anchor_chain(ops, world.settings, world.use_case, reason="a test", now=world.settings.now())


# what a run leaves


def test_run_leaves_what_it_read_decided_and_changed(template: World) -> None:
    with template.ops() as ops:
        events = ops.audit_events(use_case="churn", limit=1_000)[::-1]
        lifecycle = last_finished_lifecycle(ops, "churn")
    assert lifecycle is not None
    by_run = f"run {lifecycle.run_id}"
    (run,) = [event for event in events if event.kind == "run"]
    assert run.detail == {
        "id": 1,
        "run_id": lifecycle.run_id,
        "as_of": lifecycle.as_of.isoformat(),
        "trigger": "manual",
    }
    assert run.actor == "unknown"  # the test started it by Dagster's own command
    (configuration,) = [event for event in events if event.kind == "configuration"]
    assert configuration.detail["document"] == template.use_case.model_dump(mode="json")
    (rollout,) = [event for event in events if event.kind == "rollout"]
    assert (rollout.actor, rollout.detail["to_state"]) == (by_run, "champion")
    assert [event.detail["action"] for event in events if event.kind == "decision"] == ["champion"]
    read = {event.detail["asset"]: event.detail["reads"]
            for event in events if event.kind == "data_access"}  # fmt: skip
    assert {"raw_data", "validated_data", "features", "trained_model"} <= set(read)
    assert set(read["validated_data"]) >= {
        f"churn/raw/{name}" for name in template.use_case.sources
    }
    (version,) = [item for name, item in read["trained_model"].items() if "/features/" in name]
    with template.ops() as ops:
        features = get_pointer(ops, "churn", "features")
    assert features is not None
    assert version == [str(features.value["version"])]
    assert any(name.startswith("sources/churn/") for name in read["raw_data"])
    assert str(template.root) not in json.dumps([dict(event.detail) for event in events])


def test_run_is_anchored_at_its_end(template: World, mlops: Mlops) -> None:
    done = mlops("audit", "verify")
    assert done.exit_code == 0, done.output
    assert "not anchored yet" not in done.output
    last = json.loads(anchors(template).read_text().splitlines()[-1])
    with template.ops() as ops:
        assert (last["count"], last["head"]) == ops.audit_head()
    assert f"head {last['head']}" in done.output


def test_changed_threshold_is_an_event_with_old_and_new(in_world: World) -> None:
    with in_world.ops() as ops:
        document = in_world.use_case.model_dump(mode="json")
        now = in_world.settings.now()
        assert record_configuration(ops, "churn", document, by="run r", now=now) == {}
        document["gates"][0]["at_least"] = 0.6
        document["training"]["costs"]["false_negative"] = 9.0
        record_configuration(ops, "churn", document, by="run r", now=now)
        (newest, _) = ops.audit_events(kind="configuration")
    assert newest.detail == {
        "changed": {
            "training.costs.false_negative": {"old": 4.0, "new": 9.0},
            "gates.0.at_least": {"old": 0.5, "new": 0.6},
        }
    }


# verify


def test_verify_says_which_tail_is_not_anchored(in_world: World, mlops: Mlops) -> None:
    with in_world.ops() as ops:
        count, _ = ops.audit_head()
    more_events(in_world, 3)
    done = mlops("audit", "verify")
    assert done.exit_code == 0
    assert f"not anchored yet: events {count + 1} to {count + 3}" in done.output


def test_verify_finds_a_champion_whom_nobody_made_one(in_world: World, mlops: Mlops) -> None:
    assert mlops("audit", "verify").exit_code == 0
    database(in_world, "UPDATE rollout SET state = 'rolled_back' WHERE version = 1")
    done = mlops("audit", "verify")
    assert done.exit_code == 1
    assert (
        "version 1 of churn is in state rolled_back, stage 0; its changes lead to champion, stage 0"
        in done.output
    )


def test_verify_finds_altered_rewritten_and_cut(in_world: World, mlops: Mlops) -> None:
    database(in_world, "UPDATE audit_event SET actor = 'eve' WHERE seq = 2")
    done = mlops("audit", "verify")
    assert done.exit_code == 1
    assert "event 2 (" in done.output
    assert "altered: its content does not give its hash" in done.output

    database(in_world, "DELETE FROM audit_event")
    done = mlops("audit", "verify")
    assert done.exit_code == 1
    assert "line 2 of the anchors file has them: the chain was cut" in done.output
    assert "MLflow's anchor of" in done.output

    more_events(in_world, 100)
    done = mlops("audit", "verify")
    assert done.exit_code == 1
    assert "the chain was rewritten" in done.output

    anchor(in_world)
    with in_world.ops() as ops:
        (alert,) = list_alerts(ops, "churn", open_only=True)
    assert alert.kind == "audit_chain_broken"
    assert mlops("audit", "verify").exit_code == 1


def test_verify_finds_a_cut_altered_or_removed_anchors_file(in_world: World, mlops: Mlops) -> None:
    more_events(in_world, 2)
    anchor(in_world)
    more_events(in_world, 2)
    anchor(in_world)
    path = anchors(in_world)
    whole = path.read_bytes()
    assert mlops("audit", "verify").exit_code == 0
    lines = whole.splitlines(keepends=True)
    for changed, said in (
        (b"".join(lines[:-1]), "the anchors file lacks MLflow's anchor of"),
        (whole[:-20], f"line {len(lines)} of the anchors file is damaged or cut"),
        (b"".join(lines[:-2] + lines[-1:]), "does not follow the line before it"),
        (whole.replace(b"a test", b"a tesu"), "the anchors file and MLflow differ"),
        (b"", "the anchors file lacks MLflow's anchor of"),
    ):
        path.write_bytes(changed)
        done = mlops("audit", "verify")
        assert done.exit_code == 1, said
        assert said in done.output
    path.unlink()
    assert mlops("audit", "verify").exit_code == 1


def test_anchor_that_mlflow_was_not_told_is_found_and_told_next_time(
    in_world: World, mlops: Mlops
) -> None:
    with closing(sqlite3.connect(in_world.data / "mlflow" / "mlflow.db")) as connection, connection:
        connection.execute("DELETE FROM experiment_tags WHERE key LIKE 'audit.anchor.%'")
    done = mlops("audit", "verify")
    assert done.exit_code == 1
    assert "MLflow lacks line 1 of the anchors file" in done.output
    anchor(in_world)
    assert mlops("audit", "verify").exit_code == 0


# export and list


def test_export_can_be_verified_with_hashlib_and_json_only(in_world: World, mlops: Mlops) -> None:
    out = in_world.root / "audit.jsonl"
    assert mlops("audit", "export", "--out", str(out)).exit_code == 0
    before = "0" * 64
    for number, line in enumerate(out.read_text().splitlines(), 1):
        event = json.loads(line)
        found = event.pop("hash")
        text = json.dumps(event, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == found
        assert (event["seq"], event["previous_hash"]) == (number, before)
        before = found
    with in_world.ops() as ops:
        assert ops.audit_head() == (number, before)
    alone = mlops("audit", "export", "--use-case", "fraud")
    assert (alone.exit_code, alone.output) == (0, "")


def test_list_shows_the_newest_last(in_world: World, mlops: Mlops) -> None:
    more_events(in_world, 2)
    with in_world.ops() as ops:
        count, _ = ops.audit_head()
    done = mlops("audit", "list", "--kind", "test", "--last", "5", "--use-case", "churn")
    assert [line.split()[0] for line in done.output.splitlines()] == [str(count - 1), str(count)]
