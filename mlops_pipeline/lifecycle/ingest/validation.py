"""Validating sources by their rules: in SQL over all rows, and on a sample in pages for people.

Belongs here: quarantine, the accepted pointer, and Data Docs, Great Expectations' pages. What a
rule means is core/data/rules.py's; what is read at accepted versions accepted.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_pipeline.config.tables import Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import label_conflicts
from mlops_pipeline.core.data.rules import (
    NOT_YET_KNOWN,
    RuleResult,
    TableFigures,
    row_rules,
    table_results,
)
from mlops_pipeline.errors import NotFoundError, ValidationError
from mlops_pipeline.lifecycle.context import Accepted, AcceptedSource, Context, RunContext
from mlops_pipeline.lifecycle.ingest.accepted import (
    TABLES,
    accepted_tables,
    has_key,
    pinned_tables,
    register_accepted,
)
from mlops_pipeline.spec.rules import ClassBalance
from mlops_pipeline.stores.lake.engine import Engine, literal, quoted
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.pages import (
    SAMPLE_ROWS,
    ExpectationResult,
    judged_in_sql_only,
    write_data_docs_pages,
    write_page,
)

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 20  # quarantined rows shown per source


@dataclass(frozen=True)
class SourceValidation:
    """The results of the rules of one source, and what would be accepted."""

    source: str
    results: tuple[RuleResult, ...]
    accepted: AcceptedSource
    broken: Mapping[str, int]

    @property
    def passed(self) -> bool:
        """Whether every rule that can refuse the source passed."""
        return all(result.passed for result in self.results)


def validate_source(context: Context, name: str, *, now: datetime) -> SourceValidation:
    """Validate one source's newest version; rows that break a rule go to quarantine."""
    engine, use_case = context.engine, context.use_case
    source = use_case.sources[name]
    state = raw_table(context, name)
    raw = engine.register(f"_raw_{name}", engine.scan(state))
    rules = row_rules(use_case, name, source, raw, now)
    _mark_broken(context, name, raw, rules, keys_repeat=bool(state.facts.get("keys_repeat", True)))
    by_rule = "SELECT unnest(_rules) AS rule, count(*) FROM _broken GROUP BY rule ORDER BY rule"
    broken: dict[str, int] = dict(engine.query(by_rule))
    quarantine = _write_quarantine(context, name, source, state)
    figures = _figures(engine, name, source, broken.get(NOT_YET_KNOWN, 0))
    counts = dict.fromkeys([*rules, *([source.unique_rule] if source.unique_rule else [])], 0)
    results = [
        RuleResult(name, rule, True, float(count), None, count, f"{count:,} rows quarantined")
        for rule, count in (counts | broken).items()
    ]
    results += table_results(name, source, figures, now)
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
    return SourceValidation(name, tuple(results), accepted, broken)


def accept_sources(run: RunContext, validations: Sequence[SourceValidation]) -> Accepted:
    """Move the accepted pointer to the versions that were validated."""
    failed = [
        f"{result.source}: {result.rule}: {result.reason}"
        for validation in validations
        for result in validation.results
        if not result.passed
    ]
    if failed:
        raise ValidationError(
            "the data were refused; nothing was accepted, downstream keeps the last accepted "
            "versions",
            found="; ".join(failed),
            way_out="look at the quarantined rows in the checks of validated_data, mend the source "
            "or the rule, and run again",
        )
    accepted = {item.source: item.accepted for item in validations}
    pins = pinned_tables(run.ops, run.lake, run.use_case.name, accepted_tables(accepted))
    run.set_pointer("accepted", {name: item.to_dict() for name, item in accepted.items()})
    run.set_pointer(TABLES, pins)
    return accepted


def count_label_conflicts(context: Context, accepted: Accepted, *, now: datetime) -> int | None:
    """Return how many rows the label's sources label differently; None where they cannot."""
    use_case = context.use_case
    if use_case.label.kind != "column" or not use_case.label.also:
        return None
    tables = register_accepted(context, accepted)
    return int(label_conflicts(use_case, tables, now).execute())


def quarantine_examples(context: Context, validation: SourceValidation) -> list[dict[str, Any]]:
    """Return the first quarantined rows with their rules, without columns that tell of a person."""
    version = validation.accepted.quarantine_version
    engine, lake, use_case = context.engine, context.lake, context.use_case
    state = lake.state(lake.table_uri(use_case.name, "quarantine", validation.source), version)
    if version is None or state is None:
        return []
    source = use_case.sources[validation.source]
    hidden = use_case.hidden_columns(validation.source)
    fields = "".join(f", {quoted(column)}" for column in source.columns if column not in hidden)
    statement = (
        f"SELECT _row_no, array_to_string(_rules, ', ') AS rules{fields} "
        f"FROM {engine.scan(state)} ORDER BY _row_no LIMIT {EXAMPLES}"
    )
    rows: list[dict[str, Any]] = engine.arrow(statement).to_pylist()
    return rows


def raw_table(context: Context, name: str) -> TableState:
    """Return the newest version of a raw table; NotFoundError when it was never ingested."""
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
    """Make `_broken`: number and rules of each row that breaks one; unique keys need no look."""
    engine, source = context.engine, context.use_case.sources[name]
    flags = raw.select(
        "_row_no", **{f"r{index}": rule for index, rule in enumerate(rules.values())}
    )
    lists = ", ".join(
        f"CASE WHEN r{index} THEN {literal(rule)} END" for index, rule in enumerate(rules)
    )
    any_rule = " OR ".join(f"r{index}" for index in range(len(rules)))
    compiled = engine.compile(flags)
    statement = (
        f"SELECT _row_no, list_filter([{lists}], lambda x: x IS NOT NULL) AS _rules "
        f"FROM ({compiled}) WHERE {any_rule}"
    )
    unique = source.unique_rule
    if unique is not None and keys_repeat:
        statement = (
            f"SELECT _row_no, list_sort(flatten(list(_rules))) AS _rules "
            f"FROM ({statement} UNION ALL "
            f"SELECT unnest(_rows[2:]) AS _row_no, [{literal(unique)}] AS _rules FROM ("
            f"SELECT list(_row_no ORDER BY _row_no) AS _rows FROM {quoted(f'_raw_{name}')} "
            f"WHERE {has_key(source)} "
            f"GROUP BY {quoted(*source.key, source.availability)}, _available_at "
            "HAVING count(*) > 1)) GROUP BY _row_no"
        )
    engine.create_table("_broken", statement)


def _write_quarantine(context: Context, name: str, source: Source, state: TableState) -> int | None:
    """Write the broken rows when they changed; return the version, None when there are none."""
    engine, lake = context.engine, context.lake
    rows, digest = engine.content("_broken", ["_row_no", "_rules"])
    uri = lake.table_uri(context.use_case.name, "quarantine", name)
    before = lake.state(uri)
    facts = {"rows": rows, "digest": str(digest), "raw_version": state.version}
    if before is not None and before.facts.get("digest") == facts["digest"]:
        return before.version if rows else None
    if not rows:
        return None
    select = (
        f"SELECT _row_no, _rules, {quoted(*source.columns)} FROM {quoted(f'_raw_{name}')} "
        "JOIN _broken USING (_row_no) ORDER BY _row_no"
    )
    return lake.write(uri, engine.batches(select), facts, "overwrite")


def _figures(engine: Engine, name: str, source: Source, not_yet_known: int) -> TableFigures:
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
        not_yet_known=not_yet_known,
        newest=row[1].replace(tzinfo=UTC) if row[1] else None,  # declared: a late row is not new
        present=dict(zip(columns, map(int, row[2:]), strict=False)),
        positives={
            rule: int(value) for rule, value in zip(balances, row[2 + len(columns) :], strict=True)
        },
    )


@dataclass(frozen=True)
class DataDocs:
    """The pages that were written, and the results; `sql_only` rules have no expectation."""

    index: Path
    results: tuple[ExpectationResult, ...]
    sql_only: Mapping[str, tuple[str, ...]]


def sample_source(context: Context, name: str, rows: int = SAMPLE_ROWS) -> "pd.DataFrame":
    """Return a repeatable sample of a source's newest raw version, without superseded rows."""
    state = raw_table(context, name)
    one_in = max(1, -(-int(state.facts["rows"]) // rows))
    fields = quoted(*context.use_case.sources[name].columns)
    statement = (
        f"SELECT {fields} FROM {context.engine.scan(state)} WHERE _superseded_at IS NULL "
        f"AND hash(_row_no) % {one_in} = 0 ORDER BY _row_no LIMIT {rows}"
    )
    frame: pd.DataFrame = context.engine.arrow(statement).to_pandas()
    return frame


def write_data_docs(
    folder: Path, samples: Mapping[str, "pd.DataFrame"], use_case: UseCase, *, now: datetime
) -> DataDocs:
    """Validate each source's sample by its rules and write the pages into the folder."""
    from mlops_pipeline.core.documents.pages import render_page

    results, pages = write_data_docs_pages(folder, samples, use_case, now=now)
    sql_only = {name: judged_in_sql_only(use_case.sources[name]) for name in samples}
    docs = DataDocs(folder / "index.html", tuple(results), sql_only)
    page = render_page("data_docs.html.jinja", docs=docs, pages=pages, now=now)
    write_page(docs.index, page)
    return docs
