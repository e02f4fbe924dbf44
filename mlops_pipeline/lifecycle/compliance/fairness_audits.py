"""The live fairness audit: the champion's decisions with attributes and labels, and its record.

It leaves fairness_audit.json in the artifact folder `fairness_audit`: the newest audit.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.records import plain
from mlops_pipeline.core.evaluation.gates import PARITY_RULE
from mlops_pipeline.core.evaluation.outcomes import Gate
from mlops_pipeline.core.fairness.parity import LiveAudit, LiveDecisions, audit_decisions
from mlops_pipeline.core.features.frames import EVENT_ROW
from mlops_pipeline.lifecycle.alerts import NewAlert, alert_while
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, record_decision
from mlops_pipeline.lifecycle.context import Accepted, Context, RunContext, Snapshot
from mlops_pipeline.lifecycle.features.offline import (
    NO_LABELS,
    features_uri,
    periods_with_labels,
    with_labels,
)
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    register_accepted,
    take_snapshot,
)
from mlops_pipeline.lifecycle.rollouts import find_champion
from mlops_pipeline.stores.files import write_json
from mlops_pipeline.stores.lake.engine import quoted, sql_timestamp
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.ops import OpsDatabase

FOLDER, FILE = "fairness_audit", "fairness_audit.json"
ALERT = "fairness"  # kind of the alert, and its dedupe key
TEST_ALERT = "fairness:test"  # the key of the alert before deployment
WAY_OUT = (
    "compare the groups in the fairness_audit asset of this run and the report of the version; "
    "docs/runbook.md#fairness-alert"
)


def audit_champion(run: RunContext) -> tuple[LiveAudit, Path]:
    """Audit the champion's live decisions and record it; return the audit and its file."""
    use_case, found = run.use_case, None
    champion = find_champion(run.ops, use_case.name)
    if champion is not None:
        accepted = accepted_sources(run.ops, use_case)
        found = live_decisions(run, accepted, champion.version, now=run.now)
    audited = audit_decisions(use_case.fairness, found)
    run.log.info(audited.sentence)
    return audited, record_live_audit(run, run.ops, audited, run_id=run.run_id, now=run.now)


def live_decisions(
    context: Context, accepted: Accepted, version: int, *, now: datetime
) -> LiveDecisions:
    """Read what a version decided, with the protected attributes and the labels known by now.

    Labels are those known at the last as_of up to which every source has delivered: later ones
    would be taken for events that did not happen.
    """
    import pyarrow as pa

    use_case = context.use_case
    snapshot = take_snapshot(use_case, accepted, None, now=now)
    since = snapshot.as_of - timedelta(days=use_case.fairness.lookback_days)
    predictions = context.lake.state(context.lake.table_uri(use_case.name, "predictions"))
    features = context.lake.state(features_uri(context))
    if predictions is None or features is None:
        names = (use_case.entity.key, "probability", "decision", *use_case.protected)
        rows: Any = pa.table({**{name: [] for name in names}, "_label": pa.array([], pa.int8())})
    else:
        query = _query(context, snapshot, (predictions, features), version, since)
        rows = context.engine.arrow(query)
    label = rows.column("_label")
    return LiveDecisions(
        version=version,
        since=since,
        as_of=snapshot.as_of,
        entity=rows.column(use_case.entity.key).to_numpy(),
        probability=rows.column("probability").to_numpy(),
        decision=rows.column("decision").to_numpy(),
        protected={name: rows.column(name).to_numpy() for name in use_case.protected},
        label=label.fill_null(0).to_numpy().astype(np.int8),
        known=label.is_valid().to_numpy(),
    )


def _query(
    context: Context,
    snapshot: Snapshot,
    tables: tuple[TableState, TableState],
    version: int,
    since: datetime,
) -> str:
    """Return the query of decisions and attributes; a label where an entity's events agree."""
    use_case, engine = context.use_case, context.engine
    predictions, features = (engine.scan(state) for state in tables)
    key, names = quoted(use_case.entity.key), [quoted(name) for name in use_case.protected]
    row = [EVENT_ROW] if use_case.grid.every == "event" else []
    attributes = ", ".join(f"any_value({name}) AS {name}" for name in names)
    accepted = register_accepted(context, snapshot.accepted)
    wanted = periods_with_labels(context, snapshot)
    labels = with_labels(context, snapshot, accepted, wanted) if wanted else NO_LABELS
    begin, end = sql_timestamp(since), sql_timestamp(snapshot.as_of)
    return (
        f"WITH f AS (SELECT {', '.join([key, 'as_of', *row, *names])} FROM {features} "
        f"WHERE as_of >= {begin}), "
        f"a AS (SELECT {key}, as_of, count(*) AS _rows, {attributes} FROM f GROUP BY ALL), "
        f"l AS (SELECT {key}, as_of, min(_label) AS _low, max(_label) AS _high, count(*) AS _known "
        f"FROM ({labels}) WHERE _known_at <= {end} GROUP BY ALL) "
        f"SELECT p.{key}, p.probability, p.decision, {', '.join(names)}, "
        "CASE WHEN _low = _high AND _known = _rows THEN _low END AS _label "
        f"FROM {predictions} AS p LEFT JOIN a USING ({key}, as_of) "
        f"LEFT JOIN l USING ({key}, as_of) "
        f"WHERE p.model_version = {version} AND p.as_of >= {begin} ORDER BY p.as_of, p.{key}"
    )


def record_live_audit(
    context: Context, ops: OpsDatabase, audit: LiveAudit, *, run_id: str, now: datetime
) -> Path:
    """Store an audit, keep the decision, and raise or resolve the alert; return the file."""
    name = context.use_case.name
    document = {**plain(audit), "audited_at": now.isoformat(), "run_id": run_id}
    with context.lake.new_artifacts(name, FOLDER) as folder:
        write_json(folder / FILE, document)
    evidence = {
        "model_version": audit.version,
        "rows": audit.rows,
        "labelled": audit.labelled,
        "largest_difference": audit.parity.value,
        "limit": audit.limit,
        "above": list(audit.parity.above),
    }
    actor = f"run {run_id}"
    decision = NewDecision(FOLDER, audit.action, audit.sentence, evidence, actor=actor)
    record_decision(ops, name, decision, now=now)
    if audit.action in ("alert", "within_limits"):  # else it cannot be told
        why, is_above = audit.sentence, audit.action == "alert"
        alert = NewAlert(ALERT, "warning", why, WAY_OUT, run_id=run_id, dedupe_key=ALERT)
        alert_while(is_above, ops, name, alert, by=run_id, over=why, now=now)
    return context.lake.artifact_folder(name, FOLDER) / FILE


def raise_parity_alert(
    ops: OpsDatabase, use_case: UseCase, gate: Gate, *, run_id: str, now: datetime
) -> None:
    """Raise an alert while the newest model breaks a parity rule, whatever the rule's effect."""
    broken = [rule for rule in gate.rules if rule.name.startswith(PARITY_RULE) and rule.failing]
    said = "; ".join(f"{rule.name} ({rule.effect}): {rule.reason}" for rule in broken)
    message = f"on the test part of the newest model: {said}"
    alert = NewAlert(ALERT, "warning", message, WAY_OUT, run_id=run_id, dedupe_key=TEST_ALERT)
    why = "the newest model breaks no parity rule on its test part"
    alert_while(bool(broken), ops, use_case.name, alert, by=run_id, over=why, now=now)
