from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops_pipeline.core.documents.records import Provenance
from mlops_pipeline.lifecycle.context import open_context
from mlops_pipeline.lifecycle.deployments import Registered, open_deployment, registry_history
from mlops_pipeline.stores.models.address import is_in_use
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.lifecycle.rollout_steps import approve, open_version
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later
from mlops_pipeline_tests.worlds import shop


@pytest.fixture
def database(tmp_path: Path) -> Iterator[OpsDatabase]:
    with OpsDatabase.open(f"sqlite:///{tmp_path}/ops.db") as opened:
        yield opened


def test_history_says_what_each_version_was_from_when_to_when(database: OpsDatabase) -> None:
    open_version(database, 1, state="champion")
    open_version(database, 2, state="awaiting_approval", now=later(10))
    end = datetime(2024, 6, 1, tzinfo=UTC)
    approve(database, "churn", 2, by="ada", reason="better", expires_at=end, now=later(20))
    found = registry_history(database, "churn")
    spans = [
        (span["version"], span["state"], span["alias"], span["since"], span["until"], span["by"])
        for span in found["history"]
    ]
    noon, ten, twenty = (later(seconds) for seconds in (0, 10, 20))
    assert spans == [
        (1, "champion", "champion", noon, twenty, "run dagster-1"),
        (2, "awaiting_approval", "challenger", ten, twenty, "run dagster-2"),
        (1, "previous", "previous", twenty, None, "ada"),
        (2, "champion", "champion", twenty, None, "ada"),
    ]
    assert found["history"][3]["reason"] == "better"
    assert found["approvals"] == [
        {
            "version": 2,
            "stage": "production",
            "verdict": "approved",
            "by": "ada",
            "reason": "better",
            "at": twenty,
            "expires_at": end,
        }
    ]


def test_deployment_takes_its_facts_from_the_release_folder_and_needs_no_mlflow(
    tmp_path: Path,
) -> None:
    case, entry = shop(), Registered(7, "f7", needs_review=True)
    settings = Settings.from_environment(
        {"MLOPS_DATA_DIR": str(tmp_path), "MLOPS_NOW": "2024-06-01"}
    )
    provenance = Provenance(
        git_commit="c",
        git_dirty=False,
        dataset_snapshot_uri="s",
        environment_lockfile_uri="l",
        config_hash="h",
        feature_definitions_version="d",
        seed=1,
        run_fingerprint="f7",
        mlflow_run_id="mlflow-7",
        dagster_run_id="dagster-7",
        hardware={},
    )
    with open_context(case, settings) as context:
        rollout = open_deployment(context, entry, provenance)
        assert open_deployment(context, entry, provenance) == rollout
    assert (rollout.version, rollout.state) == (7, "awaiting_approval")
    assert (rollout.mlflow_run_id, rollout.dagster_run_id) == ("mlflow-7", "dagster-7")
    assert not is_in_use(settings)


def test_history_of_a_use_case_without_a_version_is_empty(database: OpsDatabase) -> None:
    open_version(database, 1, state="champion", now=NOON)
    assert registry_history(database, "fraud") == {
        "use_case": "fraud",
        "history": [],
        "approvals": [],
    }
