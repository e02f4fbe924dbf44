"""Source tables in which everything that was not known before a cut is noise.

For the drawn entities (table `_leak_keys`: entity key and a number from 0 on; the even ones are the
heirs of all that will happen, the others have no future, so that it also shows who looks for one):

- rows that happened or became known at the cut or later: the key of another entity, an heir, and
  random values of the same types; their times stay;
- for every heir one row more at the cut or up to 30 days after it, and one that happened a minute
  before it and became known after it: so there is noise even where the data end at the cut (not
  the second where queries rely on rows that are known when they happen);
- revisions after the cut: undone, the version before stays open;
- label columns: random in every row. Labels are known later than anything that is a feature.

The noise is a hash of row and column: the same tables give the same noise. What is done with the
tables is leak_check.py's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_pipeline.config.tables import ColumnType, Source
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.stores.lake.engine import literal, quoted

SPREAD = 4_000_000  # numbers lie in +-2 million: any sum of them is exact, any range is left
WORDS, WORD_ROWS = 16, 1_000  # texts are drawn from so many of the first rows', so filters match
LATEST_STEPS, STEP_MINUTES = 4, 10 * 24 * 60  # added rows become known 0, 10, 20 or 30 days later


@dataclass(frozen=True)
class NoisySource:
    """How one source is noised."""

    name: str
    source: Source
    key: str
    kinds: Mapping[str, str]
    words: Mapping[str, list[str]]
    labels: frozenset[str]
    is_ordered: bool
    cut: str

    @property
    def times(self) -> list[str]:
        """The columns of times, which noise keeps."""
        return list(dict.fromkeys([self.source.event_time, self.source.availability]))

    def noise(self, column: str, row: str) -> str:
        """Return SQL of a random value of the column for a row."""
        random = _random(column, row, SPREAD)
        kind: ColumnType = self.source.column(column).type
        match kind:
            case "boolean":
                value = f"{random} % 2 = 0"
            case "string":
                words = [literal(word) for word in (*self.words.get(column, ()), "noise")]
                value = f"list_value({', '.join(words)})[1 + {random} % {len(words)}]"
            case "timestamp" | "date":
                value = f"{self.cut} + to_minutes({random})"
            case _:
                value = f"{random} - {SPREAD // 2}"
        return f"CAST({value} AS {self.kinds[column]})"


def noisy_tables(
    context: Context, names: Iterable[str], cut: datetime, *, ordered: frozenset[str]
) -> dict[str, Any]:
    """Return {source: Ibis table} of the drawn entities' rows with noise for a future.

    Parameters
    ----------
    names : iterable of str
        Sources that are registered under their names (see register_accepted).
    cut : datetime
        What happened or became known at it or later is the future (UTC).
    ordered : frozenset of str
        Sources whose rows were all known when they happened: the noise keeps to it.
    """
    entities = int(context.engine.query("SELECT count(*) FROM _leak_keys")[0][0])
    tables = {}
    for name in names:
        noisy = _describe(context, name, cut, is_ordered=name in ordered)
        rows = f"({_replaced(noisy, entities)} UNION ALL BY NAME {_added(noisy)})"
        tables[name] = context.engine.register(f"_noisy_{name}", rows)
    return tables


def moment_literal(moment: datetime) -> str:
    """Return the SQL literal of a moment (naive UTC, as all times of the engine)."""
    return f"TIMESTAMP '{moment.replace(tzinfo=None).isoformat(sep=' ')}'"


def _describe(context: Context, name: str, cut: datetime, *, is_ordered: bool) -> NoisySource:
    use_case = context.use_case
    source, label = use_case.sources[name], use_case.label
    types = {row[0]: str(row[1]) for row in context.engine.query(f"DESCRIBE {quoted(name)}")}
    kept = {use_case.entity.key, source.event_time, source.availability}
    kinds = {column: types[column] for column in source.columns if column not in kept}
    texts = [column for column in kinds if source.column(column).type == "string"]
    words: dict[str, list[str]] = {}
    if texts:
        lists = ", ".join(
            f"list_sort(list(DISTINCT {column}) FILTER ({column} IS NOT NULL))[:{WORDS}]"
            for column in map(quoted, texts)
        )
        found = context.engine.query(
            f"SELECT {lists} FROM {quoted(name)} WHERE _row_no < {WORD_ROWS}"
        )[0]
        words = {column: item or [] for column, item in zip(texts, found, strict=True)}
    is_labelled = label.kind == "column" and label.source == name
    labels = (label.column, label.available_at, label.treatment) if is_labelled else ()
    return NoisySource(
        name=name,
        source=source,
        key=quoted(use_case.entity.key),
        kinds=kinds,
        words=words,
        labels=frozenset(item for item in labels if item),
        is_ordered=is_ordered,
        cut=moment_literal(cut),
    )


def _replaced(noisy: NoisySource, entities: int) -> str:
    """Return a query of the source's rows, those that were not known before the cut replaced."""
    key, cut = noisy.key, noisy.cut
    fields = [
        "r._row_no",
        "r._available_at",
        f"CASE WHEN r._superseded_at < {cut} THEN r._superseded_at END AS _superseded_at",
        f"coalesce(k.{key}, r.{key}) AS {key}",
        *(f"r.{quoted(column)}" for column in noisy.times),
    ]
    for column in noisy.kinds:
        value = noisy.noise(column, "r._row_no")
        if column not in noisy.labels:
            value = f"CASE WHEN r._is_future THEN {value} ELSE r.{quoted(column)} END"
        fields.append(f"{value} AS {quoted(column)}")
    happened = quoted(noisy.source.event_time)
    heir = f"2 * {_random(noisy.key, 'r._row_no', max(1, (entities + 1) // 2))}"
    return (
        f"SELECT {', '.join(fields)} FROM (SELECT *, ({happened} >= {cut} OR "
        f"_available_at >= {cut}) AS _is_future FROM {quoted(noisy.name)} "
        f"SEMI JOIN _leak_keys USING ({key})) AS r LEFT JOIN _leak_keys AS k "
        f"ON k._index = CASE WHEN r._is_future THEN {heir} END"
    )


def _added(noisy: NoisySource) -> str:
    """Return a query of two rows for each heir: one after the cut, one known only after it."""
    cut, row = noisy.cut, "(-1 - 2 * k._index - late)"
    wait = f"to_minutes({_random('_available_at', row, LATEST_STEPS)} * {STEP_MINUTES})"
    known = f"{cut} + {wait}"
    happened = f"{cut} + CASE WHEN late = 1 THEN to_minutes(-1) ELSE {wait} END"
    fields = [
        f"{row} AS _row_no",
        f"{known} AS _available_at",
        "NULL::TIMESTAMP AS _superseded_at",
        f"k.{noisy.key} AS {noisy.key}",
    ]
    for column in noisy.times:
        value = happened if column == noisy.source.event_time else known
        fields.append(f"{value} AS {quoted(column)}")
    fields += [f"{noisy.noise(column, row)} AS {quoted(column)}" for column in noisy.kinds]
    kinds = f"(VALUES (0){'' if noisy.is_ordered else ', (1)'}) AS kinds(late)"
    return f"SELECT {', '.join(fields)} FROM _leak_keys AS k, {kinds} WHERE k._index % 2 = 0"


def _random(column: str, row: str, bound: int) -> str:
    """Return SQL of a whole number in [0, bound), the same for the same column and row."""
    return f"(hash({literal(column)}, {row}) % {bound})::BIGINT"
