"""Shuffle the future: a feature that changes when later rows become noise has looked at them.

A finished period is computed again from tables in which everything that was not known before a cut
is noise (leak_noise.py), and compared with what is stored. On a month, week or day grid the cut is
as_of itself. On an event grid it lies just behind the median event of the period, and the events
known before it are compared: what they look back on ends at their own time.

It costs one period of about `MAX_ROWS` rows, whose entities are drawn by hash, and one scan of each
source. What the configuration alone shows of leaks is config/leakage.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period, following, step_of
from mlops_pipeline.core.features.frames import EVENT_ROW, RowGuarantees, feature_frame
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.features.leak_noise import moment_literal, noisy_tables
from mlops_pipeline.lifecycle.features.offline import features_uri, finished_periods
from mlops_pipeline.lifecycle.ingest.accepted import register_accepted, row_guarantees
from mlops_pipeline.stores.lake.engine import quoted

MAX_ROWS = 20_000  # compared: a leak shows in nearly every row, so more would only cost
ROWS = "(rows)"  # listed like a feature: which rows the period has
TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class LeakCheck:
    """What noise for a future changed.

    `leaking` are the features whose values depend on rows that were not known yet. `outdated` are
    those whose stored values the accepted rows no longer give, with noise or without: rules or code
    have changed since the period was finished. Either may hold "(rows)": rows came or went.
    """

    period: str
    cut: datetime
    rows_compared: int
    leaking: tuple[str, ...]
    outdated: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing changed."""
        return not self.leaking and not self.outdated


def leak_check(
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    *,
    period: str | None = None,
    max_rows: int = MAX_ROWS,
) -> LeakCheck:
    """Compare a finished period with itself, computed again with noise for a future.

    Parameters
    ----------
    accepted : mapping of source name to AcceptedSource
        The versions to compute from.
    period : str, optional
        Its name; default the newest finished one.
    max_rows : int
        About how many rows are compared at most.

    Raises
    ------
    NotFoundError
        When the period was never built.
    """
    chosen = _period(context, period)
    tables = register_accepted(context, accepted)
    cut, facts = _draw(context, chosen, max_rows), row_guarantees(context.use_case, accepted)
    key = context.use_case.entity.key
    names = [name for name in tables if key in context.use_case.sources[name].columns]
    noisy = noisy_tables(context, names, cut, ordered=facts.ordered)
    _compute(context, noisy, chosen, facts, "_leak_noise")
    changed = _differing(context, "_leak_stored", "_leak_noise")
    leaking: tuple[str, ...] = ()
    if changed:
        rows = f"(SELECT * FROM {{}} SEMI JOIN _leak_keys USING ({quoted(key)}))"
        drawn = {
            name: context.engine.register(f"_drawn_{name}", rows.format(quoted(name)))
            for name in names
        }
        _compute(context, drawn, chosen, facts, "_leak_clean")
        leaking = _differing(context, "_leak_clean", "_leak_noise")
    return LeakCheck(
        period=chosen.name,
        cut=cut,
        rows_compared=int(context.engine.query("SELECT count(*) FROM _leak_stored")[0][0]),
        leaking=leaking,
        outdated=tuple(name for name in changed if name not in leaking),
    )


def _period(context: Context, name: str | None) -> Period:
    done = finished_periods(context)
    chosen = name or max(done, default=None)
    if chosen is None or chosen not in done:
        raise NotFoundError(
            "there is no such finished period",
            where=context.use_case.name,
            expected=f"one of {', '.join(sorted(done)[-5:])}" if done else "a built period",
            found=str(chosen),
            way_out=f"materialize {context.use_case.name}/features first",
        )
    start = datetime.fromisoformat(chosen).replace(tzinfo=UTC)
    return Period(start, following(start, step_of(context.use_case.grid)))


def _draw(context: Context, period: Period, max_rows: int) -> datetime:
    """Make `_leak_keys` (the drawn entities) and `_leak_stored` (their rows); return the cut."""
    use_case, engine = context.use_case, context.engine
    state = context.lake.state(features_uri(context))
    if state is None:
        raise NotFoundError("there are no features", where=features_uri(context))
    key = quoted(use_case.entity.key)
    engine.sql.execute(
        f"CREATE OR REPLACE TEMP VIEW _leak_period AS SELECT * FROM {engine.scan(state)} "
        f"WHERE as_of >= {moment_literal(period.start)} AND as_of < {moment_literal(period.end)}"
    )
    count, median = engine.query("SELECT count(*), quantile_disc(as_of, 0.5) FROM _leak_period")[0]
    parts = max(1, -(-int(count) // max_rows))
    engine.sql.execute(
        f"CREATE OR REPLACE TEMP TABLE _leak_keys AS SELECT {key}, "
        f"row_number() OVER (ORDER BY {key}) - 1 AS _index FROM "
        f"(SELECT DISTINCT {key} FROM _leak_period WHERE hash({key}) % {parts} = 0)"
    )
    cut, known = period.start, ""
    if use_case.grid.every == "event":
        cut = median.replace(tzinfo=UTC) + TICK if median else period.end
        home, moment = quoted(use_case.population.source), moment_literal(cut)
        known = (
            f"WHERE as_of < {moment} AND {EVENT_ROW} IN "
            f"(SELECT _row_no FROM {home} WHERE _available_at < {moment})"
        )
    engine.sql.execute(
        "CREATE OR REPLACE TEMP TABLE _leak_stored AS SELECT * FROM _leak_period "
        f"SEMI JOIN _leak_keys USING ({key}) {known}"
    )
    return cut


def _compute(
    context: Context, tables: Mapping[str, Any], period: Period, facts: RowGuarantees, name: str
) -> None:
    """Make a table of the period's frame; of an event grid, of the stored events only."""
    use_case = context.use_case
    statement = context.engine.ibis.compile(feature_frame(use_case, tables, period, facts))
    if use_case.grid.every == "event":
        statement = f"SELECT * FROM ({statement}) SEMI JOIN _leak_stored USING ({EVENT_ROW})"
    context.engine.sql.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {statement}")


def _differing(context: Context, one: str, other: str) -> tuple[str, ...]:
    """Return the features in which two frames differ, in the order of the configuration."""
    use_case = context.use_case
    row_key = quoted(_row_key(use_case))
    names = [*use_case.features, *use_case.protected]
    both = f"a.{row_key} IS NOT NULL AND b.{row_key} IS NOT NULL"
    differs = [f"a.{name} IS DISTINCT FROM b.{name}" for name in map(quoted, names)]
    counts = [f"count(*) FILTER ({both} AND {item})" for item in differs]
    found = context.engine.query(
        f"SELECT count(*) FILTER (NOT ({both})), {', '.join(counts)} "
        f"FROM {one} AS a FULL JOIN {other} AS b ON a.{row_key} = b.{row_key}"
    )[0]
    return tuple(name for name, count in zip([ROWS, *names], found, strict=True) if count)


def _row_key(use_case: UseCase) -> str:
    return EVENT_ROW if use_case.grid.every == "event" else use_case.entity.key
