"""Computing the periods of the feature table and writing them: one Delta commit each, in order.

Belongs here: what happens to one period. Which periods are wanted, finished or missing is
offline.py's. Frames stay in DuckDB tables, which count towards its memory limit and spill.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.core.features.frames import EVENT_ROW
from mlops_pipeline.errors import DataError, masked
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.stores.lake.engine import quoted

# Compiling a frame takes longer than running it, so it is compiled once, for a period that no data
# reach; the query of a real period differs in its moments only.
TEMPLATE_PERIOD = Period(datetime(6001, 1, 1, tzinfo=UTC), datetime(8001, 1, 1, tzinfo=UTC))
COMPUTED = "_computed_period"  # the table in DuckDB that holds one period between its two steps
MOMENT = re.compile(r"MAKE_TIMESTAMP\((\d+), (\d+), (\d+), (\d+), (\d+), 0\.0\)")


@dataclass(frozen=True)
class PeriodFacts:
    """One finished period of the feature table."""

    period: str
    rows: int
    content_hash: str


def build_periods(
    context: Context,
    template: str,
    missing: Sequence[Period],
    uri: str,
    finished: Callable[[PeriodFacts], None],
) -> None:
    """Compute and write periods, one commit each; tell `finished` of each commit.

    A killed run leaves whole periods, and none without those before it. Computing takes every core:
    writing one period while computing the next would gain no time and hold both in memory.

    Parameters
    ----------
    template : str
        The query of TEMPLATE_PERIOD.
    """
    for period in missing:
        _compute(context, query_of(template, period), period)
        finished(_write(context, period, uri))
    context.engine.sql.execute(f"DROP TABLE IF EXISTS {COMPUTED}")


def query_of(template: str, period: Period) -> str:
    """Return the query of a period: every moment of the template, moved to the period's."""

    def moved(match: re.Match[str]) -> str:
        year, month, day, hour, minute = map(int, match.groups()[:5])
        moment = datetime(year, month, day, hour, minute, tzinfo=UTC)
        is_end = abs(moment - TEMPLATE_PERIOD.end) < abs(moment - TEMPLATE_PERIOD.start)
        base, target = (
            (TEMPLATE_PERIOD.end, period.end) if is_end else (TEMPLATE_PERIOD.start, period.start)
        )
        return f"TIMESTAMP '{plain(target + (moment - base))}'"

    return MOMENT.sub(moved, template)


def _compute(context: Context, statement: str, period: Period) -> None:
    import duckdb

    try:
        context.engine.sql.execute(f"CREATE OR REPLACE TEMPORARY TABLE {COMPUTED} AS {statement}")
    except (duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        raise DataError(
            "a feature's value does not fit its type",
            where=f"{context.use_case.name}, period {period.name}",
            expected="values whose exact sums fit: below 9.2e18 units of their precision",
            found=masked(str(error)),
            way_out="quarantine such rows with a range rule, or change dtype or precision",
        ) from error


def _write(context: Context, period: Period, uri: str) -> PeriodFacts:
    """Write the computed period in the order of its rows' keys."""
    use_case = context.use_case
    key = quoted(row_key(use_case))
    columns = ", ".join(map(quoted, [*use_case.features, *use_case.protected]))
    rows, digest = context.engine.query(
        f"SELECT count(*), coalesce(sum(hash({key}, as_of, {columns})::HUGEINT), 0) FROM {COMPUTED}"
    )[0]
    facts = PeriodFacts(period.name, int(rows), f"{int(digest) % 2**64:016x}")
    context.lake.write(
        uri,
        context.engine.batches(f"SELECT * FROM {COMPUTED} ORDER BY as_of, {key}"),
        {
            "period": facts.period,
            "rows": facts.rows,
            "content_hash": facts.content_hash,
            "end": period.end.isoformat(),
        },
        "append",
    )
    return facts


def row_key(use_case: UseCase) -> str:
    """Return the column that tells the rows of an as_of apart."""
    return EVENT_ROW if use_case.grid.every == "event" else use_case.entity.key


def plain(moment: datetime) -> str:
    """Return a moment as the text of an SQL timestamp, in UTC."""
    return moment.replace(tzinfo=None).isoformat(sep=" ")
