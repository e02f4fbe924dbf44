"""The features step of a run, and its leak check: build what is new, shuffle the future, accept.

A feature that changes when later rows become noise has looked at them. A finished period is
computed again from tables in which everything that was not known before a cut is noise, and
compared with what is stored. The cut is as_of itself; on an event grid just behind the median event
of the period, and the events known before it are compared. It costs one period of about `MAX_ROWS`
rows, whose entities are drawn by hash, and one scan of each source.

Noise, for the drawn entities (`_leak_keys`: the even ones are probes, to which everything future
goes; the others have no future, so that it also shows who looks for one), is a hash of row, column:

- rows that happened or became known at the cut or later: a probe's key, random values, own times;
- for every probe one row more at the cut or up to 30 days after it, and one that happened a minute
  before it and became known after it (not where queries rely on rows known when they happen);
- revisions after the cut: undone; label columns: random in every row, as labels are known later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_pipeline.core.data.periods import Period, following, step_of
from mlops_pipeline.core.features import rounding
from mlops_pipeline.core.features.frames import EVENT_ROW, RowGuarantees, feature_frame
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.context import Accepted, Context, RunContext, Snapshot
from mlops_pipeline.lifecycle.features import offline
from mlops_pipeline.lifecycle.features.catalogue import model_inputs, refuse_deleted_features
from mlops_pipeline.lifecycle.ingest.accepted import (
    TABLES,
    accepted_sources,
    pinned_tables,
    register_accepted,
    row_guarantees,
    take_snapshot,
)
from mlops_pipeline.stores.lake.engine import literal, quoted, sql_timestamp

MAX_ROWS = 20_000  # compared: a leak shows in nearly every row, so more would only cost
SAMPLE_ROWS = 20_000  # of each source: what small values lose to rounding shows in nearly every row
ROWS = "(rows)"  # listed like a feature: which rows the period has
TICK = timedelta(microseconds=1)
SPREAD = 4_000_000  # numbers lie in +-2 million: any sum of them is exact, any range is left
WORDS, WORD_ROWS = 16, 1_000  # texts are drawn from so many of the first rows', so filters match
LATEST_STEPS, STEP_MINUTES = 4, 10 * 24 * 60  # added rows become known 0, 10, 20 or 30 days later


@dataclass(frozen=True)
class LeakCheck:
    """What noise for a future changed: features, or "(rows)" where rows came or went."""

    period: str
    cut: datetime
    rows_compared: int
    leaking: tuple[str, ...]  # their values depend on rows that were not known yet
    outdated: tuple[
        str, ...
    ]  # the accepted rows no longer give what is stored: rules, code changed

    @property
    def passed(self) -> bool:
        """Whether nothing changed."""
        return not self.leaking and not self.outdated


@dataclass(frozen=True)
class CheckedFeatures:
    """Built features with their leak check, and whether the period had passed one before.

    What the accepted rows no longer give is a warning for a period that did pass (a rule may have
    changed since), and an error for one that never did: its values may be those of a leak.
    """

    built: offline.BuiltFeatures
    as_of: datetime
    leaks: LeakCheck
    has_passed_before: bool
    losses: tuple[rounding.PrecisionLoss, ...] = ()  # features whose precision is too low

    @property
    def is_blocked(self) -> bool:
        """Whether nothing downstream may read the features."""
        return bool(self.leaks.leaking or (self.leaks.outdated and not self.has_passed_before))

    @property
    def reason(self) -> str:
        """One sentence with what was found."""
        found = self.leaks
        if found.leaking:
            return f"look ahead of period {found.period}: {', '.join(found.leaking)}"
        if found.outdated:
            of = f"stored values of period {found.period} are not what the accepted rows give: "
            return of + ", ".join(found.outdated)
        return f"{found.rows_compared:,} rows of period {found.period} are the same"


def snapshot_for(run: RunContext, as_of: datetime | None) -> Snapshot:
    """Return what a run sees; refused when a live model needs a feature that was deleted."""
    refuse_deleted_features(run.use_case, model_inputs(run.ops, run.lake, run.use_case))
    accepted = accepted_sources(run.ops, run.use_case)
    return take_snapshot(run.use_case, accepted, as_of, now=run.now)


def build_checked(run: RunContext, snapshot: Snapshot) -> CheckedFeatures:
    """Build the periods that are new, and check the newest that was built or found finished."""
    before = get_pointer(run.ops, run.use_case.name, "features")

    def progress(name: str, rows: int) -> None:
        run.log.info(f"period {name}: {rows:,} rows")

    built = offline.build_features(run, snapshot, progress=progress)
    has_passed = (
        before is not None
        and before.value["definitions"] == built.definitions
        and datetime.fromisoformat(before.value["as_of"]) >= snapshot.as_of
    )
    found = leak_check(run, snapshot.accepted, period=built.periods[-1].period)
    losses = tuple(precision_losses(run, snapshot.accepted, frame="_leak_stored"))
    for item in losses:
        run.log.warning(item.sentence)
    return CheckedFeatures(built, snapshot.as_of, found, has_passed, losses)


def accept_features(run: RunContext, checked: CheckedFeatures) -> None:
    """Move the pointer to the features."""
    built = checked.built
    if checked.is_blocked:
        raise DataError(
            "the features were refused; downstream keeps those of the last accepted run",
            where=built.uri,
            expected="the same values with noise for a future",
            found=checked.reason,
            way_out="mend the definitions (other ones are another table); where the code was "
            "mended, remove the folder of the table: it is built again",
        )
    table = {f"features/{built.definitions}": built.version}
    run.set_pointer(TABLES, pinned_tables(run.ops, run.lake, run.use_case.name, table))
    run.set_pointer(
        "features",
        {
            "as_of": checked.as_of.isoformat(),
            "version": built.version,
            "definitions": built.definitions,
            "content_hash": built.content_hash,
        },
    )
    run.record_use(run.use_case.features, "computation")


def precision_losses(
    context: Context, accepted: Accepted, *, frame: str
) -> list[rounding.PrecisionLoss]:
    """Return features that rounding makes (nearly) constant; `frame` is a table of stored rows."""
    use_case, lost = context.use_case, []
    tables = register_accepted(context, accepted)
    samples = {name: table.limit(SAMPLE_ROWS) for name, table in tables.items()}
    stored = context.engine.table(frame)
    rounded = [
        (sample, rounding.source_features(use_case, name, sample))
        for name, sample in samples.items()
    ]
    for table, features in (*rounded, (stored, rounding.derived_features(use_case, stored))):
        wanted: dict[str, Any] = {}
        for feature in features:
            for count in feature.counts():
                wanted[f"c{len(wanted)}"] = count
        if not wanted:
            continue
        # of all of a table's features in one query
        counts = context.engine.query(context.engine.compile(table.aggregate(**wanted)))[0]
        for feature in features:
            mine, counts = counts[: 2 * len(feature.places)], counts[2 * len(feature.places) :]
            lost.append(rounding.precision_loss(feature, mine))
    return [item for item in lost if item is not None]


def leak_check(
    context: Context, accepted: Accepted, *, period: str | None = None, max_rows: int = MAX_ROWS
) -> LeakCheck:
    """Compare a finished period with itself, computed again with noise for a future."""
    chosen = _period(context, period)
    tables = register_accepted(context, accepted)
    cut, guarantees = _draw(context, chosen, max_rows), row_guarantees(context.use_case, accepted)
    key = context.use_case.entity.key
    names = [name for name in tables if key in context.use_case.sources[name].columns]
    noisy = noisy_tables(context, names, cut, ordered=guarantees.ordered)
    _compute(context, noisy, chosen, guarantees, "_leak_noise")
    changed = _differing(context, "_leak_stored", "_leak_noise")
    leaking: tuple[str, ...] = ()
    if changed:
        rows = f"(SELECT * FROM {{}} SEMI JOIN _leak_keys USING ({quoted(key)}))"
        drawn = {
            name: context.engine.register(f"_drawn_{name}", rows.format(quoted(name)))
            for name in names
        }
        _compute(context, drawn, chosen, guarantees, "_leak_clean")
        leaking = _differing(context, "_leak_clean", "_leak_noise")
    return LeakCheck(
        period=chosen.name,
        cut=cut,
        rows_compared=int(context.engine.query("SELECT count(*) FROM _leak_stored")[0][0]),
        leaking=leaking,
        outdated=tuple(name for name in changed if name not in leaking),
    )


def _period(context: Context, name: str | None) -> Period:
    done = offline.finished_periods(context)
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
    key = quoted(use_case.entity.key)
    scan = engine.scan(offline.feature_table(context))
    start, end = sql_timestamp(period.start), sql_timestamp(period.end)
    engine.create_view(
        "_leak_period", f"SELECT * FROM {scan} WHERE as_of >= {start} AND as_of < {end}"
    )
    count, median = engine.query("SELECT count(*), quantile_disc(as_of, 0.5) FROM _leak_period")[0]
    parts = max(1, -(-int(count) // max_rows))
    engine.create_table(
        "_leak_keys",
        f"SELECT {key}, row_number() OVER (ORDER BY {key}) - 1 AS _index FROM "
        f"(SELECT DISTINCT {key} FROM _leak_period WHERE hash({key}) % {parts} = 0)",
    )
    cut, known = period.start, ""
    if use_case.grid.every == "event":
        cut = median.replace(tzinfo=UTC) + TICK if median else period.end
        home, time = quoted(use_case.population.source), sql_timestamp(cut)
        known = (
            f"WHERE as_of < {time} AND {EVENT_ROW} IN "
            f"(SELECT _row_no FROM {home} WHERE _available_at < {time})"
        )
    drawn = f"SELECT * FROM _leak_period SEMI JOIN _leak_keys USING ({key}) {known}"
    engine.create_table("_leak_stored", drawn)
    return cut


def _compute(
    context: Context,
    tables: Mapping[str, Any],
    period: Period,
    guarantees: RowGuarantees,
    name: str,
) -> None:
    """Make a table of the period's frame; of an event grid, of the stored events only."""
    frame = feature_frame(context.use_case, tables, period, guarantees)
    statement = context.engine.compile(frame)
    if context.use_case.grid.every == "event":
        statement = f"SELECT * FROM ({statement}) SEMI JOIN _leak_stored USING ({EVENT_ROW})"
    context.engine.create_table(name, statement)


def _differing(context: Context, one: str, other: str) -> tuple[str, ...]:
    """Return the features in which two frames differ, in the order of the configuration."""
    use_case = context.use_case
    key = quoted(offline.row_key(use_case))
    names = [*use_case.features, *use_case.protected]
    both = f"a.{key} IS NOT NULL AND b.{key} IS NOT NULL"
    differs = [f"a.{name} IS DISTINCT FROM b.{name}" for name in map(quoted, names)]
    counts = [f"count(*) FILTER ({both} AND {item})" for item in differs]
    found = context.engine.query(
        f"SELECT count(*) FILTER (NOT ({both})), {', '.join(counts)} "
        f"FROM {one} AS a FULL JOIN {other} AS b ON a.{key} = b.{key}"
    )[0]
    return tuple(name for name, count in zip([ROWS, *names], found, strict=True) if count)


def noisy_tables(
    context: Context, names: Iterable[str], cut: datetime, *, ordered: frozenset[str]
) -> dict[str, Any]:
    """Return {source: Ibis table} of the drawn entities' rows with noise for a future."""
    entities = int(context.engine.query("SELECT count(*) FROM _leak_keys")[0][0])
    tables = {}
    for name in names:
        noisy = _NoisySource(context, name, cut, is_ordered=name in ordered)
        rows = f"({noisy.replaced(entities)} UNION ALL BY NAME {noisy.added()})"
        tables[name] = context.engine.register(f"_noisy_{name}", rows)
    return tables


class _NoisySource:
    """One source of which everything that was not known before the cut becomes noise, as SQL."""

    def __init__(self, context: Context, name: str, cut: datetime, *, is_ordered: bool) -> None:
        use_case, label = context.use_case, context.use_case.label
        self.name, self.source = quoted(name), use_case.sources[name]
        self.key, self.cut = quoted(use_case.entity.key), sql_timestamp(cut)
        self.is_ordered = is_ordered
        self.times = list(dict.fromkeys([self.source.happened, self.source.availability]))
        every = context.engine.columns(self.name)
        kept = {use_case.entity.key, *self.times}
        self.types = {column: every[column] for column in self.source.columns if column not in kept}
        self.labels: tuple[str | None, ...] = ()
        if label.kind == "column" and name in label.sources:
            self.labels = (label.column, label.available_at, label.treatment)
        texts = [name for name in self.types if self.source.column(name).type == "string"]
        self.words: dict[str, list[str]] = {}
        if texts:
            lists = ", ".join(
                f"list_sort(list(DISTINCT {column}) FILTER ({column} IS NOT NULL))[:{WORDS}]"
                for column in map(quoted, texts)
            )
            found = f"SELECT {lists} FROM {self.name} WHERE _row_no < {WORD_ROWS}"
            self.words = dict(zip(texts, context.engine.query(found)[0], strict=True))

    def noise(self, column: str, row: str) -> str:
        """Return a random value of the column for a row."""
        random = _random(column, row, SPREAD)
        match self.source.column(column).type:
            case "boolean":
                value = f"{random} % 2 = 0"
            case "string":
                words = [literal(word) for word in (*(self.words[column] or ()), "noise")]
                value = f"list_value({', '.join(words)})[1 + {random} % {len(words)}]"
            case "timestamp" | "date":
                value = f"{self.cut} + to_minutes({random})"
            case _:
                value = f"{random} - {SPREAD // 2}"
        return f"CAST({value} AS {self.types[column]})"

    def replaced(self, entities: int) -> str:
        """Return a query of the rows, those that were not known before the cut replaced."""
        key, cut = self.key, self.cut
        fields = [
            "r._row_no",
            "r._available_at",
            f"CASE WHEN r._superseded_at < {cut} THEN r._superseded_at END AS _superseded_at",
            f"coalesce(k.{key}, r.{key}) AS {key}",
            *(f"r.{quoted(column)}" for column in self.times),
        ]
        for column in self.types:
            value = self.noise(column, "r._row_no")
            if column not in self.labels:
                value = f"CASE WHEN r._is_future THEN {value} ELSE r.{quoted(column)} END"
            fields.append(f"{value} AS {quoted(column)}")
        happened = quoted(self.source.happened)
        probe = f"2 * {_random(key, 'r._row_no', max(1, (entities + 1) // 2))}"
        return (
            f"SELECT {', '.join(fields)} FROM (SELECT *, ({happened} >= {cut} "
            f"OR _available_at >= {cut}) AS _is_future FROM {self.name} "
            f"SEMI JOIN _leak_keys USING ({key})) AS r LEFT JOIN _leak_keys AS k "
            f"ON k._index = CASE WHEN r._is_future THEN {probe} END"
        )

    def added(self) -> str:
        """Return a query of two rows for each probe: one after the cut, one known only after it."""
        cut, row = self.cut, "(-1 - 2 * k._index - late)"
        wait = f"to_minutes({_random('_available_at', row, LATEST_STEPS)} * {STEP_MINUTES})"
        known = f"{cut} + {wait}"
        happened = f"{cut} + CASE WHEN late = 1 THEN to_minutes(-1) ELSE {wait} END"
        fields = [
            f"{row} AS _row_no",
            f"{known} AS _available_at",
            "NULL::TIMESTAMP AS _superseded_at",
            f"k.{self.key} AS {self.key}",
        ]
        for column in self.times:
            value = happened if column == self.source.happened else known
            fields.append(f"{value} AS {quoted(column)}")
        fields += [f"{self.noise(column, row)} AS {quoted(column)}" for column in self.types]
        kinds = f"(VALUES (0){'' if self.is_ordered else ', (1)'}) AS kinds(late)"
        return f"SELECT {', '.join(fields)} FROM _leak_keys AS k, {kinds} WHERE k._index % 2 = 0"


def _random(column: str, row: str, bound: int) -> str:
    """Return SQL of a whole number in [0, bound), the same for the same column and row."""
    return f"(hash({literal(column)}, {row}) % {bound})::BIGINT"
