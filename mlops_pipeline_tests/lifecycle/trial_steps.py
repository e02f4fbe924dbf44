"""A version in trial beside a world's champion, and answers as a service would have logged them."""

import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, set_pointer
from mlops_pipeline.lifecycle.champions import RELEASE
from mlops_pipeline.lifecycle.features.online.layout import to_us
from mlops_pipeline.lifecycle.rollouts import find_champion, get_rollout, open_rollout
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.mlflow import open_tracking
from mlops_pipeline.stores.predictions import SHADOW, LoggedPrediction, PredictionLog
from mlops_pipeline_tests.world import FIRST_ID, World


def open_copy_in_trial(world: World, policy: RolloutPolicy, now: datetime) -> Rollout:
    """Release the champion's files once more, as the next version, and open its rollout."""
    lake = Lake(world.settings.lake_uri)
    with world.ops() as ops:
        champion = find_champion(ops, "churn")
        assert champion is not None
        pinned = get_pointer(ops, "churn", f"{RELEASE}{champion.fingerprint}")
        assert pinned is not None
        mark = f"{champion.fingerprint[:-1]}{'0' if champion.fingerprint[-1] != '0' else '1'}"
        released, copy = (
            lake.documents_folder("churn", one) for one in (champion.fingerprint, mark)
        )
        shutil.copytree(released, copy)
        _register_copy(world, champion.version)
        set_pointer(ops, "churn", f"{RELEASE}{mark}", pinned.value, run_id="run", now=now)
        return open_rollout(
            ops, "churn", champion.version + 1, mlflow_run_id="m", dagster_run_id="d",
            fingerprint=mark, policy=policy, state="running", reason="the gate passed",
            waiting_for=None, now=now,
        )  # fmt: skip


def _register_copy(world: World, version: int) -> None:
    client = open_tracking(world.settings, "churn").client
    found = client.get_model_version("churn", str(version))
    made = client.create_model_version("churn", found.source, found.run_id)
    for name, value in found.tags.items():
        client.set_model_version_tag("churn", made.version, name, value)


def log_answers(
    world: World,
    rollout: Rollout,
    times: Sequence[datetime],
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    **shadow: Any,
) -> None:
    """Log an answer of the champion at each time, each about another customer, and its shadow.

    `shadow` are values of the shadow's rows.
    """
    answers, beside = [], []
    for number, (at, old, new) in enumerate(zip(times, *scores, strict=True)):
        at_us, entity = to_us(at), str(FIRST_ID + number)
        made = LoggedPrediction(
            id=f"{at_us:014x}{number:08d}", use_case="churn", entity=entity, at_us=at_us,
            caller="test", request_id=f"{at_us}/{number}", place=0, request_digest="",
            model_version=rollout.version - 1, role="champion", probability=float(old),
            decision=bool(old >= 0.2), threshold=0.2, needs_review=False, reasons=(), features={},
            feature_time_us=None, latency_us=900,
        )  # fmt: skip
        answers.append(made)
        row = {
            "prediction_id": made.id, "use_case": "churn", "entity": entity,
            "version": rollout.version, "probability": float(new), "decision": bool(new >= 0.2),
            "threshold": 0.2, "is_default": False, "failure": None, "latency_us": 800,
            "at_us": at_us,
        }  # fmt: skip
        beside.append({**row, **shadow})
    with PredictionLog(world.settings.predictions_url, durability="process") as log:
        log.append(answers).result()
        with log.transaction(writes=True) as connection:
            connection.execute(insert(SHADOW), beside)


def hourly(begin: datetime, count: int) -> list[datetime]:
    """Times within a day, one after another."""
    return [begin + timedelta(seconds=86_000 * place / count) for place in range(count)]


def stage_of(world: World, version: int) -> tuple[str, str | None]:
    with world.ops() as ops:
        found = get_rollout(ops, "churn", version)
    return found.state, found.stage_name
