"""What is served: a project with one use case, its champion, and the features of its entities.

The model is score_row's: 200 trees of 31 leaves on 45 columns. Peers get the same LightGBM text
and rows of numbers, categories as their codes.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from benchmarks.score_row import made_columns, made_model
from mlops_pipeline.config import UseCase
from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.lifecycle.api_keys import create_key
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.champions import MODEL, RELEASE
from mlops_pipeline.lifecycle.features.online.layout import (
    RecordsCheckpoint,
    checkpoint_text,
    online_layout,
    to_us,
)
from mlops_pipeline.lifecycle.rollouts import open_rollout
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.files import pinned_digests, write_files
from mlops_pipeline.stores.online.interface import StoredRecord, open_online_store
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

ENTITIES = 100_000
BODIES = 1_000  # rows in files of the peers, of which wrk draws
CHUNK_ROWS = 10_000
STAGES = ["shadow", {"share": 0.05}, {"share": 0.25}, {"share": 0.5}, "full"]
TRIED = RolloutPolicy.model_validate({"stages": STAGES})  # who is not the first


def make_project(root: Path, durability: str, *, is_tried: bool = False) -> str:
    """Make configuration, online store, release and rollout; return a key of the service.

    With `is_tried`, the same model is in shadow beside itself.
    """
    columns, label = made_columns()
    model = made_model(columns, label)
    document = _document(columns, durability)
    use_case = UseCase.model_validate(document)
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "bench.yaml").write_text(
        yaml.safe_dump(document, sort_keys=False), encoding="utf-8"
    )
    settings = Settings.from_environment({"MLOPS_DATA_DIR": str(root / "data")})
    _fill(use_case, settings, columns)
    _release(settings, model, 1)
    if is_tried:
        _release(settings, model, 2)
    now = datetime.now(UTC)
    with OpsDatabase.open(settings.database_url) as ops:
        end = now + timedelta(days=1)
        return create_key(ops, "load", ("predict",), by="bench", expires_at=end, now=now)


def write_peers(root: Path) -> None:
    """Write what peers serve: model.txt, and rows.jsonl, a row of numbers in each line."""
    columns, label = made_columns()
    model = made_model(columns, label)
    (root / "model.txt").write_text(model.texts["model.txt"], encoding="utf-8")
    rows = model.encode(columns)[:BODIES].astype(float)
    lines = (json.dumps(np.nan_to_num(row).tolist()) for row in rows)
    (root / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _document(columns: dict[str, Any], durability: str) -> dict[str, Any]:
    types = {name: "string" if name.startswith("category") else "float64" for name in columns}
    return {
        "name": "bench",
        "description": "What the service is measured with.",
        "owner": "benchmarks",
        "intended_use": "Measuring.",
        "entity": {"name": "customer", "key": "customer"},
        "grid": {"every": "month", "start": "2025-02-01"},
        "population": {"source": "facts"},
        "sources": {
            "facts": {
                "uri": "facts",
                "columns": {"customer": "int64", "at": "timestamp", "known": "timestamp", **types},
                "event_time": "at",
                "available_at": "known",
            }
        },
        "label": {"kind": "event_present", "source": "facts", "horizon_days": 30},
        "views": {
            "facts": {
                "source": "facts",
                "freshness_days": 40,
                "columns": {
                    name: {"aggregate": "last", "of": name, "dtype": kind}
                    for name, kind in types.items()
                },
            }
        },
        "training": {"candidates": {"lightgbm": {"kind": "lightgbm"}}},
        "gates": [{"rule": "metric", "metric": "roc_auc", "at_least": 0.5}],
        "serving": {"log_durability": durability},
    }


def _fill(use_case: UseCase, settings: Settings, columns: dict[str, Any]) -> None:
    """Write the record of every entity: 1 to ENTITIES."""
    stored = online_layout(use_case).records()
    if stored is None:
        raise AssertionError
    table, schema = stored
    at_us = to_us(datetime.now(UTC) - timedelta(days=1))
    rng = np.random.default_rng(2)
    with open_online_store(settings.online_url, timeout_ms=10_000) as store:
        for begin in range(0, ENTITIES, CHUNK_ROWS):
            drawn = rng.integers(0, len(next(iter(columns.values()))), CHUNK_ROWS)
            data = pa.table({name: _arrow(values[drawn]) for name, values in columns.items()})
            blobs = schema.encode_batch(data, at_us)
            records = [
                StoredRecord(str(begin + place + 1), at_us, None, blob)
                for place, blob in enumerate(blobs)
            ]
            done = RecordsCheckpoint(at_us, None, True, True, None, ENTITIES)
            store.write_records(table, records, now_us=at_us, checkpoint=checkpoint_text(done))


def _arrow(values: Any) -> pa.Array:
    if values.dtype == object:
        return pa.array(values, pa.string())
    return pa.array(values.astype(np.float64), pa.float64(), from_pandas=True)


def _release(settings: Settings, model: ScoringModel, version: int) -> None:
    now, fingerprint = datetime.now(UTC), f"bench-{version}"
    folder = Lake(settings.lake_uri).documents_folder("bench", fingerprint)
    folder.mkdir(parents=True)
    write_files(folder / MODEL, model.files)
    (folder / "metadata.json").write_text("{}")
    with OpsDatabase.open(settings.database_url) as ops:
        pins = {"files": pinned_digests(folder), "package": {}}
        set_pointer(ops, "bench", f"{RELEASE}{fingerprint}", pins, run_id="run", now=now)
        open_rollout(
            ops, "bench", version, mlflow_run_id="run", dagster_run_id="run",
            fingerprint=fingerprint, policy=TRIED, state="champion", reason="benchmark",
            waiting_for=None, now=now,
        )  # fmt: skip
