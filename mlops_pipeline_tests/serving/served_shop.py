"""A champion of the shop: a small model in a release folder, and its rollout."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from mlops_pipeline.config.modelling import Candidate, RolloutPolicy
from mlops_pipeline.core.modelling.fitting import Fitting, Rows, encode_rows, learn_inputs
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.champions import MODEL, RELEASE
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.files import pinned_digests, write_files
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.lifecycle.rollout_steps import open_version
from mlops_pipeline_tests.worlds import NOW

INPUTS = ("visits", "spent", "last_kind", "spent_a_visit")


def shop_model(seed: int = 1, names: Sequence[str] = INPUTS) -> ScoringModel:
    """A logistic regression on made-up customers; what the shop has not is a number."""
    rng, rows = np.random.default_rng(seed), np.arange(400)
    columns: dict[str, Any] = {
        "visits": rng.poisson(3.0, 400).astype(np.float32),
        "spent": rng.gamma(2.0, 5.0, 400).astype(np.float32),
        "last_kind": rng.choice(np.array(["till", "web"], dtype=object), 400),
        "spent_a_visit": rng.gamma(2.0, 2.0, 400).astype(np.float32),
    }
    columns |= {name: rng.gamma(2.0, 2.0, 400).astype(np.float32)
                for name in names if name not in columns}  # fmt: skip
    label = (rng.random(400) < 1 / (1 + np.exp(columns["spent"] / 5 - 2))).astype(np.int8)
    inputs = learn_inputs(columns, names, rows, None)
    recipe: Any = TypeAdapter(Candidate).validate_python({"kind": "logistic"})
    part = Rows(encode_rows(inputs, columns, rows), label)
    return (
        Fitting("logistic", recipe, inputs, part, None, balanced=False, seed=3, threads=1)
        .fit()
        .model
    )


def release(
    settings: Settings,
    version: int = 1,
    use_case: str = "shop",
    names: Sequence[str] = INPUTS,
    policy: RolloutPolicy | None = None,
) -> ScoringModel:
    """Put a version into its release folder and make it the champion, or begin its trial."""
    model, fingerprint = shop_model(version, names), f"fingerprint-{version}"
    folder = Lake(settings.lake_uri).documents_folder(use_case, fingerprint)
    folder.mkdir(parents=True)
    write_files(folder / MODEL, model.files)
    document = {
        "version": version,
        "provenance": {"git_commit": "c0ffee", "dataset_snapshot_uri": "snapshot.json"},
        "training": {"as_of": "2025-01-01T00:00:00+00:00"},
    }
    (folder / "metadata.json").write_text(json.dumps(document))
    (folder / "data_snapshot.json").write_text(json.dumps({"sources": {}}))
    with OpsDatabase.open(settings.database_url) as ops:
        pins = {"files": pinned_digests(folder), "package": {}}
        set_pointer(ops, use_case, f"{RELEASE}{fingerprint}", pins, run_id="run", now=NOW)
        open_version(ops, version, state="champion", use_case=use_case, policy=policy)
    return model
