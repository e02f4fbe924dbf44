"""A champion is loaded from its release folder, compared by digest, without heavy libraries."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.errors import ModelFilesError
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.champions import MODEL, RELEASE, release_document, released_model
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.files import pinned_digests, write_files
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.core.evaluation.example_evaluation import use_case
from mlops_pipeline_tests.core.modelling.example_models import RECIPES, fitted
from mlops_pipeline_tests.lifecycle.rollout_steps import approve, open_waiting
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later
from mlops_pipeline_tests.worlds import NOW

HEAVY = ("mlflow", "sklearn", "pandas", "lightgbm", "xgboost")
SCORE = """
import json, sys
import numpy as np
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.lifecycle.champions import released_model
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
settings = Settings.from_environment({"MLOPS_DATA_DIR": sys.argv[1]})
with OpsDatabase.open(settings.database_url) as ops:
    model = released_model(ops, settings, UseCase.model_validate_json(sys.argv[2]), "f1")
columns = {"amount": np.array([3.5, np.nan], np.float32), "tickets": np.zeros(2, np.float32),
           "plan": np.array(["plus", None], object), "noise": np.ones(2, np.float32)}
said = model.decide(columns)
print(json.dumps([said.probability.tolist(), sorted(set(sys.argv[3:]) & set(sys.modules))]))
"""


def released(root: Path, kind: str) -> Settings:
    """Settings of a lake with one release folder that holds a model and its metadata."""
    settings = Settings.from_environment({"MLOPS_DATA_DIR": str(root)})
    folder = Lake(settings.lake_uri).documents_folder(use_case().name, "f1")
    folder.mkdir(parents=True)
    write_files(folder / MODEL, fitted(kind).files)
    (folder / "metadata.json").write_text("{}")
    pins = {"files": pinned_digests(folder), "package": {}}
    with OpsDatabase.open(settings.database_url) as ops:
        set_pointer(ops, use_case().name, f"{RELEASE}f1", pins, run_id="run", now=NOW)
    return settings


def loaded(settings: Settings, fingerprint: str = "f1") -> ScoringModel:
    with OpsDatabase.open(settings.database_url) as ops:
        return released_model(ops, settings, use_case(), fingerprint)


@pytest.mark.parametrize("kind", RECIPES)
def test_champion_is_scored_in_a_fresh_process_without_heavy_libraries(
    kind: str, tmp_path: Path
) -> None:
    released(tmp_path, kind)
    words = [str(tmp_path), use_case().model_dump_json(), *HEAVY]
    done = subprocess.run(
        [sys.executable, "-c", SCORE, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    probability, loaded = json.loads(done.stdout)
    assert loaded == []
    assert 0 < probability[0] < 1


def test_released_model_is_the_one_that_was_written(tmp_path: Path) -> None:
    settings = released(tmp_path, "lightgbm")
    assert loaded(settings).files == fitted("lightgbm").files


def test_released_model_of_damaged_bytes_is_refused(tmp_path: Path) -> None:
    settings = released(tmp_path, "lightgbm")
    folder = Lake(settings.lake_uri).documents_folder(use_case().name, "f1") / MODEL
    (folder / "model.txt").write_bytes(b"\xff\xfe")
    (folder / "left").mkdir()
    with pytest.raises(ModelFilesError, match=r"left, model\.txt"):
        loaded(settings)


def test_released_model_with_another_threshold_is_refused(tmp_path: Path) -> None:
    settings = released(tmp_path, "logistic")
    path = Lake(settings.lake_uri).documents_folder(use_case().name, "f1") / MODEL / "model.json"
    path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": 0.1'))
    with pytest.raises(ModelFilesError, match=r"model\.json"):
        loaded(settings)


def test_released_model_whose_files_and_document_were_exchanged_is_refused(tmp_path: Path) -> None:
    settings = released(tmp_path, "logistic")
    folder = Lake(settings.lake_uri).documents_folder(use_case().name, "f1")
    shutil.rmtree(folder / MODEL)
    other = write_files(folder / MODEL, fitted("lightgbm").files)
    (folder / "metadata.json").write_text(json.dumps({"model_files": other}))
    with pytest.raises(ModelFilesError, match="not those that were released"):
        loaded(settings)


def test_released_model_that_the_ledger_does_not_know_is_refused(tmp_path: Path) -> None:
    settings = released(tmp_path, "logistic")
    with pytest.raises(ModelFilesError, match="nothing says which files") as caught:
        loaded(settings, "f2")
    assert caught.value.way_out


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE rollout SET state = 'champion', stage = 0",
        "UPDATE rollout SET fingerprint = 'f1', version = 2",
        "UPDATE approval SET expires_at = NULL",
        "UPDATE approval SET stage = 'production'",
        "DELETE FROM approval",
    ],
)
def test_version_whose_rows_are_not_as_the_chain_tells_is_not_loaded(
    attack: str, tmp_path: Path
) -> None:
    settings = released(tmp_path, "logistic")
    said: Any = {"by": "ada", "reason": "good", "now": NOON, "expires_at": later(99)}
    with OpsDatabase.open(settings.database_url) as ops:
        open_waiting(ops, 1, use_case().name, fingerprint="f1")
        approve(ops, use_case().name, 1, stage="staging", **said)
    assert loaded(settings)
    with closing(sqlite3.connect(settings.data_dir / "ops.db")) as opened, opened:
        for change in ("update", "delete"):
            opened.execute(f"DROP TRIGGER approval_no_{change}")
        opened.execute(attack)
    with pytest.raises(ModelFilesError, match=r"version [12], .* were altered"):
        loaded(settings)


@pytest.mark.parametrize("held", [None, b"{", b"\xff", b"[]"])
def test_document_of_a_release_that_is_not_whole_is_refused(
    held: bytes | None, tmp_path: Path
) -> None:
    settings = released(tmp_path, "logistic")
    document = Lake(settings.lake_uri).documents_folder(use_case().name, "f1") / "metadata.json"
    document.unlink()
    if held is not None:
        document.write_bytes(held)
    with pytest.raises(ModelFilesError, match="gone or damaged"):
        release_document(settings, use_case(), "f1")
