"""Model cards, their reviews and the technical documentation, by command, on the trained world."""

import hashlib
import json
import re
import subprocess
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from typer.testing import CliRunner, Result

from mlops_pipeline.cli.app import app
from mlops_pipeline.config import config_hash, parse_use_case
from mlops_pipeline.errors import MlopsError, NotFoundError, StateError
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import list_decisions
from mlops_pipeline.lifecycle.compliance.cards import (
    DOCUMENTS,
    SUMS,
    record_review,
    remind_of_review,
)
from mlops_pipeline.lifecycle.rollouts import find_champion
from mlops_pipeline.orchestration.build import build_definitions
from mlops_pipeline.orchestration.resources import Platform
from mlops_pipeline_tests.world import World

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
Mlops = Callable[..., Result]


@pytest.fixture
def mlops(world: World, monkeypatch: pytest.MonkeyPatch) -> Mlops:
    monkeypatch.chdir(world.root)
    for name, value in {**world.environment, "MLOPS_NOW": "2026-12-24"}.items():
        monkeypatch.setenv(name, value)

    def invoke(*words: str) -> Result:
        done = CliRunner().invoke(app, list(words), catch_exceptions=True)
        if done.exception is not None and not isinstance(done.exception, MlopsError):
            raise done.exception
        return done

    return invoke


def _documents(world: World) -> Path:
    (folder,) = world.artifacts.glob("*-release")
    return folder


# the card


def test_registered_card_lies_beside_the_documents_and_in_mlflow(template: World) -> None:
    folder = _documents(template)
    (in_mlflow,) = (template.data / "mlflow" / "artifacts").rglob("release")
    for name in ("model_card.md", "model_card.html"):
        assert (folder / name).read_bytes() == (in_mlflow / name).read_bytes()
    assert not (in_mlflow / "training.json").exists()
    card = (folder / "model_card.md").read_text()
    assert "State: registered; it passed the gate and does not need a person's approval." in card
    assert "- This is the first version." in card


def test_card_shows_the_champion_as_it_stands_now(mlops: Mlops, world: World) -> None:
    card = mlops("card", "churn").output
    assert "State: in use (the champion), since " in card
    assert "this card was written on 2026-12-24." in card
    assert "| in use (the champion) | run " in card
    assert mlops("card", "show", "churn", "1").output == card
    done = mlops("card", "churn", "--html", "out/card.html")
    assert "churn version 1: out/card.html" in done.output
    html = (world.root / "out" / "card.html").read_text()
    assert html.startswith("<!doctype html>")
    assert "in use (the champion)" in html


def test_card_of_a_version_that_is_not_there_is_an_error(mlops: Mlops) -> None:
    assert isinstance(mlops("card", "churn", "7").exception, NotFoundError)


def test_card_without_a_champion_is_an_error(mlops: Mlops, world: World) -> None:
    (world.data / "ops.db").unlink()
    done = mlops("card", "churn")
    assert "churn has no champion" in str(done.exception)


def test_card_of_a_version_without_documents_says_which_is_missing(
    mlops: Mlops, world: World
) -> None:
    (_documents(world) / "configuration.json").unlink()
    done = mlops("card", "churn")
    assert "a document of the version is missing" in str(done.exception)
    assert "configuration.json" in str(done.exception)


# reviews


def test_review_is_due_after_a_quarter_and_a_person_resolves_it(mlops: Mlops, world: World) -> None:
    case = world.use_case
    with world.ops() as ops:
        champion = find_champion(ops, "churn")
        assert champion is not None
        began = champion.changed_at
        assert "is due on" in remind_of_review(ops, case, now=began + timedelta(days=80))
        assert list_alerts(ops, "churn") == []
        for days in (93, 100):
            said = remind_of_review(ops, case, now=began + timedelta(days=days))
            assert said.startswith("the model card of version 1 was due for review on ")
        (alert,) = list_alerts(ops, "churn", open_only=True)
        assert (alert.kind, alert.severity, alert.times_raised) == ("review_due", "warning", 2)
        assert "mlops card review churn --by NAME --reason TEXT" in alert.action

    done = mlops("card", "review", "churn", "--by", "Ann", "--reason", "read, still right")

    assert "churn version 1: card reviewed; recorded: Ann" in done.output
    assert "1 effect pending" in done.output
    with world.ops() as ops:
        (closed,) = list_alerts(ops, "churn")
        assert (closed.resolved_by, closed.resolution) == ("Ann", "read, still right")
        (decision,) = list_decisions(ops, "churn", kind="card_review")
        assert (decision.action, decision.reason) == ("reviewed", "Ann: read, still right")
        assert decision.evidence == {"version": 1}
        reviewed = datetime(2026, 12, 24, tzinfo=UTC)
        said = remind_of_review(ops, case, now=reviewed + timedelta(days=30))
        assert said == "the card of version 1 is due on 2027-03-24"
    assert "- 2026-12-24: Ann: read, still right" in mlops("card", "churn").output


def test_reminder_without_a_champion_raises_nothing(world: World) -> None:
    (world.data / "ops.db").unlink()
    with world.ops() as ops:
        said = remind_of_review(ops, world.use_case, now=datetime(2030, 1, 1, tzinfo=UTC))
        assert said == "there is no champion, so no card to review"
        assert list_alerts(ops, "churn") == []


@pytest.mark.parametrize(("by", "reason"), [(" ", "read"), ("Ann", "")])
def test_review_without_name_or_reason_is_an_error(world: World, by: str, reason: str) -> None:
    with world.ops() as ops, pytest.raises(StateError, match=r"needs '(by|reason)'"):
        record_review(ops, world.use_case, by=by, reason=reason, now=datetime.now(UTC))


def test_card_review_job_raises_the_alert(world: World) -> None:
    late = Platform(environment={**world.environment, "MLOPS_NOW": "2031-01-01"})
    defs = build_definitions(
        config_dir=world.root / "configs", resource_overrides={"platform": late}
    )
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.get_repository_def().get_job("churn_card_review")
        assert job.execute_in_process(instance=instance).success
    with world.ops() as ops:
        (alert,) = list_alerts(ops, "churn", open_only=True)
        count, _ = ops.audit_head()
    assert alert.kind == "review_due"
    newest = (world.data / "audit" / "anchors.jsonl").read_text().splitlines()[-1]
    assert json.loads(newest)["count"] == count


# the pack


def test_pack_lists_every_file_with_its_hash_and_links_to_what_is_there(
    mlops: Mlops, world: World
) -> None:
    done = mlops("pack", "churn", "--out", "out/pack")
    assert "partly filled: 9 points of Annex IV" in done.output
    folder = world.root / "out" / "pack"
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    listed = {line.split("  ")[1] for line in (folder / SUMS).read_text().splitlines()}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert listed == there - {SUMS}
    made = (
        "index.html",
        "README.md",
        "model_card.html",
        "approvals.json",
        "features.json",
        "configuration.yaml",
    )
    assert there >= {*DOCUMENTS, *made}
    index = (folder / "index.html").read_text()
    for target in re.findall(r'href="([^"#]+)[^"]*"', index):
        assert (folder / target).is_file(), target
    written = yaml.safe_load((folder / "configuration.yaml").read_text())
    assert config_hash(parse_use_case(written, folder)) == config_hash(world.use_case)
    events = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert {"rollout", "decision"} <= {event["kind"] for event in events}
    assert {event["use_case"] for event in events} == {"churn"}
    state = json.loads((folder / "approvals.json").read_text())
    assert (state["state"], len(state["events"])) == ("champion", 1)
    assert (
        "data_gb_mean_28d"
        in json.loads((folder / "features.json").read_text())["views"]["usage"]["columns"]
    )


def test_pack_of_the_same_state_is_the_same_zip(mlops: Mlops, world: World) -> None:
    archive, digests = world.root / "pack.zip", []
    for _ in range(2):
        assert mlops("pack", "churn", "--out", "pack").exit_code == 0
        digests.append(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        assert names == sorted(names)
        assert f"pack/{SUMS}" in names
        assert {item.date_time for item in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert opened.testzip() is None
    assert {path.name for path in world.root.glob("*pack*")} == {"pack", "pack.zip"}


def test_pack_holds_what_people_supply(mlops: Mlops, world: World) -> None:
    (world.root / "plan.md").write_text("how it is watched")
    documents = {"governance": {"documents": {"post_market_plan": "plan.md"}}}
    world.configure(lambda document: document.update(documents))
    mlops("pack", "churn", "--out", "pack")
    folder = world.root / "pack"
    assert (folder / "documents" / "post_market_plan.md").read_text() == "how it is watched"
    readme = (folder / "README.md").read_text()
    assert "| 9 | Performance after it is in use | filled |  |" in readme
    assert "- [the post-market monitoring plan](<documents/post_market_plan.md>)" in readme


def test_pack_with_a_missing_document_writes_nothing(mlops: Mlops, world: World) -> None:
    documents = {"governance": {"documents": {"provider": "nowhere.md"}}}
    world.configure(lambda document: document.update(documents))
    done = mlops("pack", "churn", "--out", "pack")
    assert "governance.documents.provider" in str(done.exception)
    (_documents(world) / "report.html").unlink()
    world.configure(lambda document: document.pop("governance"))
    with pytest.raises(FileNotFoundError):
        mlops("pack", "churn", "--out", "pack")
    assert not list(world.root.glob("*pack*"))


@pytest.mark.parametrize("foreign", ["pack/notes.txt", "pack", "pack.zip"])
def test_pack_refuses_what_is_not_an_earlier_pack(mlops: Mlops, world: World, foreign: str) -> None:
    path = world.root / foreign
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    done = mlops("pack", "churn", "--out", "pack")
    assert isinstance(done.exception, StateError)
    assert path.name in str(done.exception)
    assert path.read_text() == "mine"


def test_pack_refuses_an_earlier_pack_with_a_file_beside_it(mlops: Mlops, world: World) -> None:
    mlops("pack", "churn", "--out", "pack")
    (world.root / "pack" / "notes.txt").write_text("mine")
    assert "notes.txt" in str(mlops("pack", "churn", "--out", "pack").exception)
    assert (world.root / "pack" / "notes.txt").read_text() == "mine"
