"""What of a delivery is not simply taken: a watermark that jumps, rows that are left out.

Belongs here: what a person may allow one run to do, and what a run says of rows it left out. How
rows are compared and written is ingestion.py's.
"""

from dataclasses import asdict, dataclass
from datetime import datetime

from mlops_pipeline.config.tables import ALWAYS
from mlops_pipeline.core.rollout.approvals import signed
from mlops_pipeline.errors import NotFoundError, SourceError
from mlops_pipeline.lifecycle.alerts import NewAlert, alert_while
from mlops_pipeline.lifecycle.context import Context, RunContext
from mlops_pipeline.stores.lake.engine import quoted, sql_timestamp
from mlops_pipeline.stores.lake.tables import TableState

JUMP = 3  # times the longest pause so far: what is longer looks like a wrong date
RHYTHM_DAYS = 3  # days with rows before pauses can be compared
LEFT_OUT = "rows_left_out"  # kind of the alert


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
