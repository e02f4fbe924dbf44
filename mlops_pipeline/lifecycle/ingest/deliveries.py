"""What of a delivery is not simply taken: dates that jump, rows left out, columns that change.

A raw table follows its source. A new column is missing in the rows from before it was declared,
which are compared with a delivery without it. `since` in a commit's facts says from which `_row_no`
on a column was read; `columns` what was declared. How rows are written is ingestion.py's.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from mlops_pipeline.config.tables import ALWAYS, Source
from mlops_pipeline.core.rollout.approvals import signed
from mlops_pipeline.errors import NotFoundError, SourceError
from mlops_pipeline.lifecycle.alerts import NewAlert, alert_while
from mlops_pipeline.lifecycle.context import Context, RunContext
from mlops_pipeline.stores.lake.engine import Engine, quoted, sql_timestamp
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.sources import stored_type

JUMP = 3  # times the longest pause so far: what is longer looks like a wrong date
RHYTHM_DAYS = 3  # days with rows before pauses can be compared
LEFT_OUT = "rows_left_out"  # kind of the alert
WIDER = {("BIGINT", "DOUBLE")}  # stored type, declared type


@dataclass(frozen=True)
class Permits:
    """What this one run may do: let watermarks jump, take rows in that came too late; and why."""

    accept_jump: tuple[str, ...] = ()
    restate: tuple[str, ...] = ()
    by: str = ""
    reason: str = ""


def record_permits(run: RunContext, given: Permits) -> None:
    """Put what is allowed into the audit chain; StateError without who and why."""
    named = (*given.accept_jump, *given.restate)
    for name in named:
        if name not in run.use_case.sources:
            raise NotFoundError.of("source", name, run.use_case.sources)
    if named:
        said = signed(given.by, given.reason, run.now)
        run.ops.append_audit(
            "delivery_permitted",
            {**asdict(given), "by": said.by, "reason": said.reason, "run_id": run.run_id},
            use_case=run.use_case.name,
            actor=said.by,
            now=run.now,
        )


def refuse_jump(context: Context, name: str, state: TableState | None, *, now: datetime) -> None:
    """Refuse rows after a far longer pause than ever: a wrong date would move the watermark."""
    engine, source = context.engine, context.use_case.sources[name]
    if state is None or source.static or source.availability == ALWAYS:
        return
    watermark = state.facts.get("watermark")
    if not watermark:
        return
    time = quoted(source.availability)
    mark, until = sql_timestamp(datetime.fromisoformat(watermark)), sql_timestamp(now)
    days = f"SELECT DISTINCT CAST({time} AS DATE) AS day FROM {{0}} WHERE {time} {{1}}"
    new = days.format("_staged", f"> {mark} AND {time} <= {until}")
    pauses = (
        "SELECT day, lag(day) OVER (ORDER BY day) AS before, "
        "day - lag(day) OVER (ORDER BY day) AS pause FROM ({0})"
    )
    since = pauses.format(f"SELECT CAST({mark} AS DATE) AS day UNION {new}")
    pause, before, after = engine.query(
        f"SELECT pause, before, day FROM ({since}) ORDER BY pause DESC NULLS LAST LIMIT 1"
    )[0]
    if pause is None or pause <= max(source.lateness_days, 1):
        return  # nothing that could still come would be left out
    stored = days.format(engine.scan(state), f"<= {mark}")
    longest, count = engine.query(f"SELECT max(pause), count(*) FROM ({pauses.format(stored)})")[0]
    if count < RHYTHM_DAYS or pause <= JUMP * longest:
        return
    raise SourceError(
        f"source {name}: its newest rows lie far ahead of all that came before",
        where=f"sources.{name}: column {source.availability!r}",
        expected=f"a pause of at most {JUMP} times {longest} days, the longest so far",
        found=f"no row between {before} and {after} ({pause} days)",
        way_out="mend the dates in the delivery; if the pause is right: mlops run "
        f"{context.use_case.name} --accept-jump {name} --reason TEXT (docs/runbook.md#deliveries)",
    )


def say_left_out(run: RunContext, left_out: dict[str, str]) -> None:
    """Raise an alert while deliveries hold rows or files that were left out; {source: what}."""
    names = [name for name, what in left_out.items() if what]
    what = "; ".join(f"{name}: {left_out[name]}" for name in names)
    alert = NewAlert(
        LEFT_OUT,
        "warning",
        f"parts of deliveries were left out: {what}",
        f"take late rows in once: mlops run {run.use_case.name} --restate SOURCE --reason TEXT; "
        "or raise lateness_days; remove copies of files (docs/runbook.md#deliveries)",
        run_id=run.run_id,
        dedupe_key=LEFT_OUT,
    )
    over = "nothing delivered is left out any more"
    alert_while(bool(names), run.ops, run.use_case.name, alert, by=run.run_id, over=over,
                now=run.now)  # fmt: skip
    if names:
        run.log.warning(alert.message)


def evolve(context: Context, name: str, uri: str) -> TableState | None:
    """Bring a raw table to the declared columns; return its state, None where there is none."""
    engine, lake, source = context.engine, context.lake, context.use_case.sources[name]
    state = lake.state(uri)
    if state is None:
        return None
    found = engine.columns(engine.scan(state))
    before = state.facts.get("columns", list(found))
    new = [column for column in source.stored if column not in found]
    numbered = int(state.facts["rows"]) + int(state.facts.get("removed", 0))
    added = (column for column in source.stored if column not in before)  # read from now on
    since = {**state.facts.get("since", {}), **dict.fromkeys(added, numbered)}
    wider = _wider(name, source, found)
    if not new and not wider and since == state.facts.get("since", {}):
        return state
    facts = {**state.facts, "since": since, "columns": list(source.stored)}
    casts = ", ".join(f"CAST({quoted(column)} AS DOUBLE) AS {quoted(column)}" for column in wider)
    rows = f"SELECT *{f' REPLACE ({casts})' if wider else ''} FROM {engine.scan(state)}"
    nothing = "".join(
        f", CAST(NULL AS {stored_type(source, column)}) AS {quoted(column)}" for column in new
    )
    select = f"SELECT *{nothing} FROM ({rows}{'' if wider else ' LIMIT 0'})"
    lake.write(uri, engine.arrow(select), facts, "overwrite" if wider else "extend")
    return lake.state(uri)


def _wider(name: str, source: Source, found: dict[str, str]) -> list[str]:
    """Return the columns whose declared type holds all that is stored, and more."""
    wider = []
    for column in source.stored:
        declared = stored_type(source, column)
        change = (found.get(column, declared), declared)
        if change in WIDER:
            wider.append(column)
        elif change[0] != declared:
            raise SourceError(
                f"source {name}: the declared type of a column is another than the stored one",
                where=f"sources.{name}.columns.{column}",
                expected=f"the stored type ({change[0]}), or float64 where int64 is stored",
                found=source.column(column).type,
                way_out="declare the type as it was, or deliver the values in a column of another "
                "name (docs/runbook.md#a-source-changes)",
            )
    return wider


def lacking(engine: Engine, source: Source, state: TableState, where: str) -> str:
    """Return the query of delivered rows that a table lacks, as a bag, by columns known then."""
    stored, every = engine.scan(state), quoted(*source.stored)
    since = {column: state.facts.get("since", {}).get(column, 0) for column in source.stored}
    marks = sorted({0, *since.values()}, reverse=True)
    newest = f"SELECT {every} FROM {stored} WHERE {where} AND _row_no >= {marks[0]}"
    left = f"SELECT {every} FROM _delivery WHERE {where} EXCEPT ALL {newest}"
    for first, end in zip(marks[1:], marks, strict=False):
        known = [column for column in source.stored if since[column] <= first]
        same = " AND ".join(
            f"d.{name} IS NOT DISTINCT FROM s.{name}" for name in map(quoted, known)
        )
        left = (
            f"SELECT {every} FROM (SELECT d.*, s._many FROM (SELECT *, row_number() OVER "
            f"(PARTITION BY {quoted(*known)} ORDER BY {every}) AS _nth FROM ({left})) AS d "
            f"LEFT JOIN (SELECT {quoted(*known)}, count(*) AS _many FROM {stored} WHERE {where} "
            f"AND _row_no >= {first} AND _row_no < {end} GROUP BY ALL) AS s ON {same} "
            "WHERE d._nth > coalesce(s._many, 0))"
        )
    return left


def kept_facts(source: Source, before: dict[str, Any]) -> dict[str, Any]:
    """Return the facts about columns that go on from one commit to the next."""
    return {"since": before.get("since", {}), "columns": list(source.stored)}
