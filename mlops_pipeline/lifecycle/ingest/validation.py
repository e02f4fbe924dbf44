"""Judging the rules over all rows in SQL, quarantine, and the accepted pointer's content."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mlops_pipeline.config.privacy import hidden_columns
from mlops_pipeline.config.tables import ClassBalance, Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.rules import (
    TableFigures,
    Verdict,
    row_rules,
    table_verdicts,
    unique_rule,
)
from mlops_pipeline.core.features.frames import Facts
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.ingest.ingestion import superseded_at
from mlops_pipeline.stores.lake.engine import Engine, literal, quoted
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.ops import OpsDatabase

EXAMPLES = 20  # quarantined rows shown per source


@dataclass(frozen=True)
class AcceptedSource:
    """One source as downstream may read it: a version without its quarantined rows.

    `removed` counts the numbered rows of people who were forgotten.
    """

    version: int
    quarantine_version: int | None
    rows: int
    quarantined: int
    content_hash: str
    watermark: datetime | None
    has_revisions: bool
    has_repeated_keys: bool = True
    removed: int = 0

    @property
    def numbered(self) -> int:
        """How many row numbers were given: every `_row_no` is below it."""
        return self.rows + self.quarantined + self.removed

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        mark = self.watermark.isoformat() if self.watermark else None
        return {**asdict(self), "watermark": mark}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "AcceptedSource":
        """Read what to_dict wrote."""
        mark = given["watermark"]
        return cls(**{**given, "watermark": datetime.fromisoformat(mark) if mark else None})


@dataclass(frozen=True)
class Judgement:
    """The verdicts on one source, and what would be accepted."""

    source: str
    verdicts: tuple[Verdict, ...]
    accepted: AcceptedSource
    broken: Mapping[str, int]

    @property
    def passed(self) -> bool:
        """Whether every rule that can refuse the source passed."""
        return all(verdict.passed for verdict in self.verdicts)


def judge(context: Context, name: str, *, now: datetime) -> Judgement:
    """Judge one source's newest version; rows that break a rule go to quarantine.

    Raises
    ------
    NotFoundError
        When the source was never ingested.
    """
    engine, use_case = context.engine, context.use_case
    source = use_case.sources[name]
    state = _raw(context, name)
    raw = engine.register(f"_raw_{name}", engine.scan(state))
    rules = row_rules(use_case, name, source, raw, now)
    _mark_broken(context, name, raw, rules, keys_repeat=bool(state.facts.get("keys_repeat", True)))
    broken = {
        rule: int(count)
        for rule, count in engine.query(
            "SELECT rule, count(*) FROM (SELECT unnest(_rules) AS rule FROM _broken) "
            "GROUP BY rule ORDER BY rule"
        )
    }
    quarantine = _write_quarantine(context, name, source, state)
    figures = _figures(engine, name, source)
    unique = unique_rule(source)
    verdicts = [
        Verdict(name, rule, True, float(count), None, count, f"{count:,} rows quarantined")
        for rule, count in (
            (rule, broken.get(rule, 0)) for rule in [*rules, *([unique] if unique else [])]
        )
    ]
    verdicts += table_verdicts(name, source, figures, now)
    facts = state.facts
    accepted = AcceptedSource(
        version=state.version,
        quarantine_version=quarantine,
        rows=figures.rows,
        quarantined=figures.quarantined,
        content_hash=str(facts["content_hash"]),
        watermark=figures.newest,
        has_revisions=bool(facts.get("has_revisions")),
        has_repeated_keys=bool(facts.get("keys_repeat", True)),
        removed=int(facts.get("removed", 0)),
    )
    return Judgement(name, tuple(verdicts), accepted, broken)


def accepted_sources(ops: OpsDatabase, use_case: UseCase) -> dict[str, AcceptedSource]:
    """Return the accepted version of every source.

    Raises
    ------
    NotFoundError
        When nothing was accepted yet.
    """
    pointer = ops.get_pointer(use_case.name, "accepted")
    if pointer is None:
        raise NotFoundError(
            "there are no accepted data yet",
            where=use_case.name,
            way_out=f"mlops run {use_case.name}, or materialize {use_case.name}/validated_data",
        )
    return {name: AcceptedSource.from_dict(item) for name, item in pointer.value.items()}


def with_revisions(accepted: Mapping[str, AcceptedSource]) -> frozenset[str]:
    """Return the sources that hold revisions."""
    return frozenset(name for name, item in accepted.items() if item.has_revisions)


def row_facts(use_case: UseCase, accepted: Mapping[str, AcceptedSource]) -> Facts:
    """Return what queries may rely on about the accepted rows."""
    unique = set()
    for name, item in accepted.items():
        source = use_case.sources[name]
        covers = set(source.key) <= {use_case.entity.key, source.event_time}
        if source.key and covers and not item.has_repeated_keys:
            unique.add(name)
    return Facts(revised=with_revisions(accepted), unique=frozenset(unique))


def register_accepted(context: Context, accepted: Mapping[str, AcceptedSource]) -> dict[str, Any]:
    """Return {source: Ibis table of its accepted rows}, at the accepted versions."""
    tables = {}
    lake, use_case = context.lake, context.use_case
    for name, item in accepted.items():
        state = lake.state(lake.table_uri(use_case.name, "raw", name), item.version)
        if state is None:
            raise _gone(name)
        hidden = None
        if item.quarantine_version is not None:
            uri = lake.table_uri(use_case.name, "quarantine", name)
            hidden = lake.state(uri, item.quarantine_version)
            if hidden is None:
                raise _gone(name)
        source = use_case.sources[name]
        versions = source if item.has_revisions and source.key else None
        tables[name] = context.engine.register(
            name, _accepted_rows(context.engine, state, hidden, versions)
        )
    return tables


def _gone(name: str) -> NotFoundError:
    return NotFoundError(
        "an accepted version is gone, or was erased with a person who was forgotten",
        where=f"source {name}",
        way_out="materialize raw_data, validated_data and what comes after them again",
    )


def _accepted_rows(
    engine: Engine, state: TableState, hidden: TableState | None, versions: Source | None
) -> str:
    """Return the FROM item of a table without its quarantined rows.

    A quarantined revision closes nothing: the version before it stays open.
    """
    if hidden is None:
        return engine.scan(state)
    broken = engine.scan(hidden)
    kept = f"SELECT * FROM {engine.scan(state)} ANTI JOIN {broken} AS broken USING (_row_no)"
    if versions is None:
        return f"({kept})"
    keys = ", ".join(quoted(column) for column in versions.key)
    return (
        f"(WITH kept AS ({kept}) SELECT * FROM kept ANTI JOIN {broken} AS broken USING ({keys}) "
        f"UNION ALL BY NAME SELECT * REPLACE ({superseded_at(versions)} AS _superseded_at) "
        f"FROM kept SEMI JOIN {broken} AS broken USING ({keys}))"
    )


def quarantine_examples(context: Context, judgement: Judgement) -> list[dict[str, Any]]:
    """Return the first quarantined rows with their rules, without columns that tell of a person."""
    version = judgement.accepted.quarantine_version
    engine, lake, use_case = context.engine, context.lake, context.use_case
    state = lake.state(lake.table_uri(use_case.name, "quarantine", judgement.source), version)
    if version is None or state is None:
        return []
    source = use_case.sources[judgement.source]
    hidden = hidden_columns(use_case, judgement.source)
    fields = "".join(f", {quoted(column)}" for column in source.columns if column not in hidden)
    statement = (
        f"SELECT _row_no, array_to_string(_rules, ', ') AS rules{fields} "
        f"FROM {engine.scan(state)} ORDER BY _row_no LIMIT {EXAMPLES}"
    )
    rows: list[dict[str, Any]] = engine.sql.sql(statement).to_arrow_table().to_pylist()
    return rows


def _raw(context: Context, name: str) -> TableState:
    use_case = context.use_case
    state = context.lake.state(context.lake.table_uri(use_case.name, "raw", name))
    if state is None:
        raise NotFoundError(
            f"source {name} was never ingested",
            where=use_case.name,
            way_out=f"materialize {use_case.name}/raw_data first",
        )
    return state


def _mark_broken(
    context: Context, name: str, raw: Any, rules: Mapping[str, Any], *, keys_repeat: bool
) -> None:
    """Make table `_broken`: _row_no and the list of rules of every row that breaks one.

    `keys_repeat` False: ingestion saw every key once, so that none can break uniqueness.
    """
    engine, source = context.engine, context.use_case.sources[name]
    flags = raw.select(
        "_row_no", **{f"r{index}": rule for index, rule in enumerate(rules.values())}
    )
    lists = ", ".join(
        f"CASE WHEN r{index} THEN {literal(rule)} END" for index, rule in enumerate(rules)
    )
    any_rule = " OR ".join(f"r{index}" for index in range(len(rules)))
    compiled = engine.ibis.compile(flags)
    statement = (
        f"SELECT _row_no, list_filter([{lists}], lambda x: x IS NOT NULL) AS _rules "
        f"FROM ({compiled}) WHERE {any_rule}"
    )
    unique = unique_rule(source)
    if unique is not None and keys_repeat:
        keys = ", ".join(quoted(column) for column in source.key)
        has_key = " AND ".join(f"{quoted(column)} IS NOT NULL" for column in source.key)
        statement = (
            f"SELECT _row_no, list_sort(flatten(list(_rules))) AS _rules "
            f"FROM ({statement} UNION ALL "
            f"SELECT unnest(_rows[2:]) AS _row_no, [{literal(unique)}] AS _rules FROM ("
            f"SELECT list(_row_no ORDER BY _row_no) AS _rows FROM {quoted(f'_raw_{name}')} "
            f"WHERE {has_key} GROUP BY {keys}, {quoted(source.availability)}, _available_at "
            "HAVING count(*) > 1)) GROUP BY _row_no"
        )
    engine.sql.execute(f"CREATE OR REPLACE TEMP TABLE _broken AS {statement}")


def _write_quarantine(context: Context, name: str, source: Source, state: TableState) -> int | None:
    """Write the broken rows when they changed; return the version, None when there are none."""
    engine, lake, use_case = context.engine, context.lake, context.use_case
    rows, digest = engine.query(
        "SELECT count(*), coalesce(sum(hash(_row_no, _rules)::HUGEINT), 0) FROM _broken"
    )[0]
    uri = lake.table_uri(use_case.name, "quarantine", name)
    held = lake.state(uri)
    facts = {"rows": int(rows), "digest": str(digest), "raw_version": state.version}
    if held is not None and held.facts.get("digest") == facts["digest"]:
        return held.version if rows else None
    if not rows:
        return None
    fields = ", ".join(quoted(column) for column in source.columns)
    select = (
        f"SELECT _row_no, _rules, {fields} FROM {quoted(f'_raw_{name}')} "
        "JOIN _broken USING (_row_no) ORDER BY _row_no"
    )
    return lake.write(uri, engine.batches(select), facts, "overwrite")


def _figures(engine: Engine, name: str, source: Source) -> TableFigures:
    columns = list(source.columns)
    balances = [rule for rule in source.rules if isinstance(rule, ClassBalance)]
    counts = ", ".join(f"count({quoted(column)})" for column in columns)
    positives = "".join(
        f", count(*) FILTER ({quoted(rule.column)} = {literal(str(rule.positive))})"
        for rule in balances
    )
    row = engine.query(
        f"SELECT count(*), max({quoted(source.availability)}), {counts}{positives} "
        f"FROM {quoted(f'_raw_{name}')} ANTI JOIN _broken USING (_row_no)"
    )[0]
    return TableFigures(
        rows=int(row[0]),
        quarantined=int(engine.query("SELECT count(*) FROM _broken")[0][0]),
        newest=row[1].replace(tzinfo=UTC) if row[1] else None,  # declared: a late row is not new
        present=dict(zip(columns, map(int, row[2:]), strict=False)),
        positives={
            rule: int(value) for rule, value in zip(balances, row[2 + len(columns) :], strict=True)
        },
    )
