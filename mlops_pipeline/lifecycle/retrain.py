"""Retraining, as a sensor or schedule asks: gather evidence, decide, record it with its reason.

Evidence is counted in the source files as they lie there, before rules and quarantine; only the
lifecycle ingests and validates.
"""

import hashlib
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import case_key, default_as_of, known_labels, periods
from mlops_pipeline.core.data.periods import known_at as labels_known_at
from mlops_pipeline.core.features.frames import population
from mlops_pipeline.core.monitoring.retraining import Evidence, RetrainingDecision, Trigger, decide
from mlops_pipeline.errors import SourceError
from mlops_pipeline.lifecycle.bookkeeping import (
    NewDecision,
    get_pointer,
    last_finished_lifecycle,
    list_decisions,
    record_decision,
)
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, open_context
from mlops_pipeline.lifecycle.ingest.accepted import decisive_marks
from mlops_pipeline.lifecycle.ingest.ingestion import forgotten_pseudonyms, without_erased
from mlops_pipeline.lifecycle.project import check_approval
from mlops_pipeline.lifecycle.rollouts import find_trial
from mlops_pipeline.stores.lake.engine import quoted, sql_timestamp
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline.stores.source_files import delivered_version, find_files
from mlops_pipeline.stores.sources import known_at, open_delivery


def decide_retraining(
    context: Context, trigger: Trigger, *, is_under_way: Callable[[], bool]
) -> tuple[RetrainingDecision, str | None]:
    """Decide on the evidence of now; return the decision, and the key of the run it asks for.

    The run key names the evidence and the attempt: the same evidence never runs twice at once, a
    crashed run is tried again up to the policy's bound, and a refusal by the gate does not fire
    again. A decision not to run that equals the last one of its kind is not stored again.
    """
    use_case, ops, now = context.use_case, context.ops, context.now
    check_approval(ops, use_case, now=now)
    evidence = new_data_evidence(use_case, context.settings, ops, trigger, now=now)
    base = f"{trigger}:{evidence.last_as_of}:{evidence.next_as_of}:{evidence.new_labels}"
    before = list_decisions(ops, use_case.name, kind=trigger)
    attempts = sum((item.run_key or "").startswith(f"{base}:") for item in before)
    evidence = replace(evidence, attempts=attempts)
    decision = decide(evidence, use_case.retraining)
    trial = find_trial(ops, use_case.name)
    if decision.retrain and trial is not None:  # a newer version would supersede it
        reason = (
            f"version {trial.rollout.version} is in trial ({trial.stage.name}): it is not cut off"
        )
        decision = replace(decision, retrain=False, reason=reason)
    if decision.retrain and is_under_way():  # asked last: gathering takes its time
        decision = replace(decision, retrain=False, reason="a run is under way")
    key = f"{base}:{attempts + 1}" if decision.retrain else None
    action = "retrain" if decision.retrain else "skip"
    if key or not before or (before[0].action, before[0].reason) != (action, decision.reason):
        noted = asdict(evidence)
        made = NewDecision(trigger, action, decision.reason, noted, run_key=key)
        record_decision(ops, use_case.name, made, now=now)
    return decision, key


def sources_state(use_case: UseCase, settings: Settings) -> str:
    """Return a hash of the names of every source file, and of what tells its deliveries apart."""
    digest = hashlib.sha256()
    for name, source in use_case.sources.items():
        files: tuple[str, ...] = ()
        with suppress(SourceError):  # nothing was delivered yet
            files = find_files(settings, name, source).paths
        for path in files:
            digest.update(f"{name}|{path}|{delivered_version(path)}\n".encode())
    return digest.hexdigest()[:16]


def new_data_evidence(
    use_case: UseCase, settings: Settings, ops: OpsDatabase, trigger: Trigger, *, now: datetime
) -> Evidence:
    """Count what is new in the source files since the last finished lifecycle."""
    last = last_finished_lifecycle(ops, use_case.name)
    with open_context(use_case, settings) as context:
        erased = forgotten_pseudonyms(ops, use_case.name, use_case.entity.name)
        marks = _watermarks(context, now, erased)
        labels, next_as_of = 0, None
        if marks:
            next_as_of = default_as_of(use_case.grid, now, decisive_marks(use_case, marks))
        if last is not None and next_as_of is not None and next_as_of > last.as_of:
            labels = _new_labels(context, last.as_of, next_as_of)
    pointer = get_pointer(ops, use_case.name, "accepted")
    accepted = pointer.value if pointer else {}
    before = {name: AcceptedSource.from_dict(item).watermark for name, item in accepted.items()}
    return Evidence(
        trigger=trigger,
        new_labels=labels,
        has_new_data=any(
            (known := before.get(name)) is None or mark > known for name, mark in marks.items()
        ),
        attempts=0,
        last_as_of=last.as_of.date().isoformat() if last else None,
        next_as_of=next_as_of.date().isoformat() if next_as_of else None,
    )


def _watermarks(context: Context, now: datetime, erased: Collection[str]) -> dict[str, datetime]:
    """Make each source's files a table; return the newest availabilities, {} if one is empty."""
    engine = context.engine
    marks: dict[str, datetime] = {}
    for name, source in context.use_case.sources.items():
        delivery = open_delivery(engine, context.settings, context.use_case, name)
        kept, _ = without_erased(context, name, delivery.select, erased)
        availability = quoted(source.availability)
        engine.create_view(
            name,
            f"SELECT *, 0::BIGINT AS _row_no, {known_at(source, source.availability)} "
            "AS _available_at, "
            f"NULL::TIMESTAMP AS _superseded_at FROM ({kept}) "
            f"WHERE {availability} <= {sql_timestamp(now)}",
        )
        newest = engine.query(f"SELECT max({availability}) FROM {quoted(name)}")[0][0]
        if newest is None:
            return {}
        marks[name] = newest.replace(tzinfo=UTC)
    return marks


def _new_labels(context: Context, since: datetime, until: datetime) -> int:
    use_case = context.use_case
    tables = {name: context.engine.table(name) for name in use_case.sources}
    if use_case.label.kind == "column":
        labels = known_labels(use_case, tables, until)
        if use_case.label.also:  # what a second source says of a labelled row is no new label
            labels = labels.group_by(case_key(use_case)).agg(known_at=labels.known_at.min())
        is_new = labels.known_at > since.replace(tzinfo=None)
        return int(labels.filter(is_new).count().execute())
    return sum(
        int(population(use_case, tables, period).count().execute())
        for period in periods(use_case.grid, until)
        if since < labels_known_at(use_case, period) <= until
    )
