"""Batch scoring: a model's predictions for one period, in a table, idempotent by period.

What the champion says is in `predictions`. Trial scores of a version in staging are in a table of
their own, `trial_predictions`, where nothing that decides looks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.records import from_plain, plain
from mlops_pipeline.core.evaluation import evaluation
from mlops_pipeline.core.modelling.explanations import give_reasons, word_inputs
from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.alerts import NewAlert, alert_while
from mlops_pipeline.lifecycle.batch_log import flag_high_impact, log_batch
from mlops_pipeline.lifecycle.champions import champion_rollout, released_model, trial_rollout
from mlops_pipeline.lifecycle.context import Context, RunContext
from mlops_pipeline.lifecycle.features.offline import features_uri, finished_periods, row_key
from mlops_pipeline.lifecycle.train import read_facts
from mlops_pipeline.stores.lake.engine import quoted
from mlops_pipeline.stores.lake.tables import Lake

ALERT = "missing_inputs"
WAY_OUT = (
    "look whether the feature's source still arrives, and arrives whole: the checks of raw_data "
    "and validated_data, and the feature's page in the catalogue; the scores of these rows were "
    "made without it"
)
EXPLAINED_AT_ONCE = 8_192  # rows whose reasons are in memory as objects


@dataclass(frozen=True)
class Scored:
    """What a scoring run did."""

    uri: str
    version: int
    period: str
    rows: int
    positives: int
    is_new: bool
    missing: tuple[evaluation.MissingShare, ...] = ()

    def changed(self, use_case: UseCase) -> list[evaluation.MissingShare]:
        """Return the inputs whose share of missing values changed too much since training."""
        limit = evaluation.missing_limit(use_case.gates)
        return [item for item in self.missing if item.change > limit]


def predict_batch(run: RunContext, period: str | None, version: int | None) -> Scored:
    """Score a period with the champion; with a version in staging instead, as a trial."""
    is_trial, use_case = version is not None, run.use_case
    rollout = (
        champion_rollout(run.ops, use_case, now=run.now)
        if version is None
        else trial_rollout(run.ops, use_case, version, now=run.now)
    )
    model = released_model(run.ops, run.settings, use_case, rollout.fingerprint)
    facts = read_facts(run.lake.documents_folder(use_case.name, rollout.fingerprint))
    scored = score_period(
        *(run, model, rollout.version, period),
        train_missing=facts.train_missing,
        run_id=run.run_id,
        is_trial=is_trial,
        now=run.now,
    )
    run.record_use(model.input_names, "batch_scoring")
    if not is_trial:
        _watch_missing(run, scored)
    return scored


def _watch_missing(run: RunContext, scored: Scored) -> None:
    changed = scored.changed(run.use_case)
    alert = NewAlert(
        *(
            ALERT,
            "warning",
            f"period {scored.period}: {evaluation.missing_words(changed)}",
            WAY_OUT,
        ),
        run_id=run.run_id,
        dedupe_key=ALERT,
    )
    over = f"period {scored.period}: missing values are as in training"
    alert_while(
        bool(changed), run.ops, run.use_case.name, alert, by=run.run_id, over=over, now=run.now
    )


def score_period(
    context: Context,
    model: ScoringModel,
    model_version: int,
    period: str | None,
    *,
    train_missing: Mapping[str, float],
    run_id: str,
    is_trial: bool = False,
    now: datetime,
) -> Scored:
    """Score every row of a period (default: the newest) with the champion, or as a trial.

    Scoring the same period with the same version again changes nothing; another version's scores
    are added beside the earlier ones, which stay as the record of what was said.
    """
    done = finished_periods(context)
    chosen = period or max(done, default=None)
    if chosen is None or chosen not in done:
        raise DataError(
            "there are no features for this period",
            expected=f"one of {', '.join(sorted(done)[-5:])}" if done else "a built period",
            found=str(chosen),
            way_out=f"run the lifecycle of {context.use_case.name} at a later as_of first",
        )
    uri = predictions_uri(context.lake, context.use_case, is_trial=is_trial)
    for facts in reversed(context.lake.commit_metadata(uri)):  # the last commit of a period counts
        if facts["period"] == chosen and facts["model_version"] == model_version:
            missing = from_plain(tuple[evaluation.MissingShare, ...], facts["missing"])
            said_before = (chosen, facts["rows"], facts["positives"])
            return Scored(uri, facts["version"], *said_before, False, missing)
    table = _features(context, chosen)
    columns = _columns(model, table)
    said, impacts = flag_high_impact(context, table, model.decide(columns))
    result = _predictions(
        context, table, said, model_version=model_version, run_id=run_id, now=now
    ).append_column("reasons", _reasons(context.use_case, model, columns, said.decision))
    missing = evaluation.compare_missing(train_missing, columns)
    facts = {
        "period": chosen,
        "model_version": model_version,
        "rows": len(result),
        "positives": int(said.decision.sum()),
        "for_decisions": not is_trial,
        "missing": plain(missing),
    }
    if not is_trial:  # first, so that a table that was written has all its rows in the log
        log_batch(context, table, model, said, impacts, version=model_version, now=now)
    version = context.lake.write(uri, result, facts, "extend")
    return Scored(uri, version, chosen, len(result), int(said.decision.sum()), True, missing)


def predictions_uri(lake: Lake, use_case: UseCase, *, is_trial: bool = False) -> str:
    """Return the address of the table that scores go to."""
    return lake.table_uri(use_case.name, "trial_predictions" if is_trial else "predictions")


def _features(context: Context, period: str) -> Any:
    state = context.lake.state(features_uri(context))
    if state is None:
        raise DataError("there are no features", where=context.use_case.name)
    by_event = context.use_case.grid.every == "event"
    step = context.use_case.grid.period if by_event else "day"
    start = f"TIMESTAMP '{period} 00:00:00'"
    return context.engine.arrow(
        f"SELECT * FROM {context.engine.scan(state)} WHERE as_of >= {start} AND as_of < {start} "
        f"+ INTERVAL 1 {step.upper()} ORDER BY as_of, {quoted(row_key(context.use_case))}"
    )


def _columns(model: ScoringModel, table: Any) -> dict[str, Any]:
    columns = {name: table.column(name).to_numpy() for name in model.attributes}
    for item in model.document["inputs"]:
        values = table.column(item["name"]).to_numpy()
        columns[item["name"]] = values if item["type"] == "category" else values.astype(np.float32)
    return columns


def _predictions(
    context: Context,
    table: Any,
    said: Decisions,
    *,
    model_version: int,
    run_id: str,
    now: datetime,
) -> Any:
    import pyarrow as pa

    rows = len(table)
    key = context.use_case.entity.key
    return pa.table(
        {
            key: table.column(key),
            "as_of": table.column("as_of"),
            "probability": pa.array(said.probability),
            "decision": pa.array(said.decision),
            "needs_review": pa.array(said.needs_review),
            "model_version": pa.array(np.full(rows, model_version)),
            "run_id": pa.array([run_id] * rows),
            "scored_at": pa.array([now.replace(tzinfo=None)] * rows, pa.timestamp("us")),
        }
    )


def _reasons(
    use_case: UseCase, model: ScoringModel, columns: Mapping[str, Any], decision: Any
) -> Any:
    """Return every row's reason codes, strongest first; missing where none are configured."""
    import pyarrow as pa

    reason = {"feature": pa.string(), "text": pa.string(), "contribution": pa.float64()}
    kind = pa.list_(pa.struct(list(reason.items())))
    count = use_case.explanations.reason_codes
    if count == 0:
        return pa.nulls(len(decision), kind)
    wording = word_inputs(use_case)
    blocks = []
    for start in range(0, len(decision), EXPLAINED_AT_ONCE):
        rows = slice(start, start + EXPLAINED_AT_ONCE)
        block = {name: values[rows] for name, values in columns.items()}
        given = give_reasons(model, block, decision[rows], wording, count)
        blocks.append(pa.array([[vars(item) for item in row] for row in given], kind))
    return pa.chunked_array(blocks, kind)
