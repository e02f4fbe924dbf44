"""One person's rows in the tables of a use case: counted, and written without them.

Raw and quarantine tables are written again as a whole, the newest version and the accepted one,
under new version numbers; row numbers stay. Feature and prediction tables are written again period
by period. What other versions held is deleted with their files, so they can be read no more, except
those that a model version recorded and that did not hold the person.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC
from itertools import pairwise
from typing import Any

from mlops_pipeline.core.features.frames import EVENT_ROW
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import Accepted, AcceptedSource, Context
from mlops_pipeline.lifecycle.ingest.ingestion import INTERNAL
from mlops_pipeline.stores.lake.engine import content_hash, literal, quoted
from mlops_pipeline.stores.lake.tables import ARCHIVES, BY_PERIOD, REWRITTEN, VERSIONED, TableState

Renumbered = dict[int, int]  # {version: the one that has its rows without the person}


class PersonRows:
    """The rows of one entity in a use case's lake; `check` fails where the lease was lost."""

    def __init__(
        self, context: Context, entity_id: str, check: Callable[[], None] = lambda: None
    ) -> None:
        self.context, self.lake, self.engine = context, context.lake, context.engine
        self.name, self.key = context.use_case.name, context.use_case.entity.key
        self.check = check
        self._mine = f"coalesce({quoted(self.key)}::VARCHAR = {literal(entity_id)}, FALSE)"
        self._counted: dict[tuple[str, ...], int] = {}

    # what there is

    def tables(self) -> dict[str, str]:
        """Return {layer, or layer/name: address} of every table that has the key as a column."""
        every = self._every_table()
        return {label: uri for label, uri in every.items() if self._has_key(self._newest(uri))}

    def without_key(self) -> list[str]:
        """Return the tables that lack the key: whose rows they hold cannot be told."""
        searched = self.tables()
        return [label for label in self._every_table() if label not in searched]

    def counts(self) -> dict[str, int]:
        """Return how many rows are the person's, by table; tables without one are left out."""
        found = {label: self._count(self._newest(uri)) for label, uri in self.tables().items()}
        return {label: count for label, count in found.items() if count}

    def model_versions(self) -> dict[int, list[str]]:
        """Return {version: `source@n`} that hold the person; `(gone)`: may have held them."""
        found: dict[int, list[str]] = {}
        for version, sources in self._snapshots().items():
            held = [
                f"{name}@{item['version']}{'' if is_there else ' (gone)'}"
                for name, item in sources.items()
                if (is_there := self._recorded_hold(name, item)) is not False
            ]
            if held:
                found[version] = held
        return found

    def _recorded_hold(self, name: str, item: Mapping[str, Any]) -> bool | None:
        """Whether recorded tables of a source hold the person; None: one of them is gone."""
        recorded = self._recorded(name, item)
        if any(self._holds(uri, number) for uri, number in recorded):
            return True
        return None if any(self._at(uri, number) is None for uri, number in recorded) else False

    # without the person

    def erase_sources(self, accepted: Accepted) -> dict[str, AcceptedSource]:
        """Write raw and quarantine again; return what is accepted. Files stay until `purge`."""
        renewed = {}
        for name, item in accepted.items():
            moved = self._rewrite("raw", name, item.version)
            shifted = self._rewrite("quarantine", name, item.quarantine_version)
            renewed[name] = self._renewed(name, item, moved, shifted) if moved or shifted else item
        for label in self.tables():  # of what is not accepted, or configured no more
            layer, _, name = label.partition("/")
            if layer in VERSIONED and name not in accepted:
                self._rewrite(layer, name, None)
        return renewed

    def erase_periods(self) -> None:
        """Write periods that hold the person again; archives, which have none, as a whole."""
        for label, uri in self.tables().items():
            layer = label.partition("/")[0]
            if layer in ARCHIVES:
                self._rewrite_archive(uri)
            elif layer not in VERSIONED:
                self._rewrite_periods(uri)

    def purge(self, accepted: Accepted) -> None:
        """Delete the files of every version that may hold the person."""
        keep: dict[str, set[int]] = {}
        for sources in self._snapshots().values():
            for name, item in sources.items():
                for uri, number in self._recorded(name, item):
                    if self._at(uri, number) and not self._holds(uri, number):
                        keep.setdefault(uri, set()).add(number)
        for name, item in accepted.items():
            for uri, number in self._recorded(name, item.to_dict()):
                keep.setdefault(uri, set()).add(number)
        for uri in self.tables().values():
            self.check()
            self.lake.purge(uri, keep=sorted(keep.get(uri, ())))

    def _rewrite(self, layer: str, name: str, version: int | None) -> Renumbered:
        """Write a version and the newest again if one holds the person; of the same files, once."""
        uri = self.lake.table_uri(self.name, layer, name)
        newest = self.lake.state(uri)
        if newest is None or not self._has_key(newest):
            return {}
        numbers = sorted({newest.version, newest.version if version is None else version})
        states = [state for number in numbers if (state := self._at(uri, number))]
        if not any(self._count(state) for state in states):
            return {}
        written: dict[tuple[str, ...], int] = {}
        for state in states:
            if state.files not in written:
                self.check()
                facts = self._raw_facts(state) if layer == "raw" else self._quarantine_facts(state)
                rows = f"SELECT * FROM {self._others(state)} ORDER BY _row_no"
                batches = self.engine.batches(rows)
                written[state.files] = self.lake.write(uri, batches, facts, "overwrite")
        return {state.version: written[state.files] for state in states}

    def _rewrite_archive(self, uri: str) -> None:
        state = self._newest(uri)
        mine = self._count(state)
        if mine:
            self.check()
            rows = self.engine.batches(
                f"SELECT * FROM {self._others(state)} ORDER BY prediction_id"
            )
            self.lake.write(uri, rows, {"removed": mine, REWRITTEN: True}, "overwrite")

    def _rewrite_periods(self, uri: str) -> None:
        state = self._newest(uri)
        parts = {(f["period"], f.get("model_version")): f for f in self.lake.commit_metadata(uri)}
        starts = sorted({period for period, _ in parts})
        following = dict(pairwise(starts))
        columns = self._columns(state)
        order = ", ".join(quoted(name) for name in ("as_of", EVENT_ROW) if name in columns)
        for (period, model), before in parts.items():
            where = f"as_of >= '{period} 00:00:00'"
            if period in following:
                where += f" AND as_of < '{following[period]} 00:00:00'"
            if model is not None:
                where += f" AND model_version = {int(model)}"
            mine = f"SELECT count(*) FROM {self.engine.scan(state)} WHERE {where} AND {self._mine}"
            if self.engine.query(mine)[0][0]:
                self.check()
                kept = f"{self._others(state)} WHERE {where}"
                facts = {**before, **self._period_facts(columns, kept), REWRITTEN: True}
                del facts["version"]
                rows = f"SELECT * FROM {kept} ORDER BY {order}, {quoted(self.key)}"
                self.lake.write(uri, self.engine.batches(rows), facts, "overwrite", where=where)

    # facts of what was written

    def _raw_facts(self, state: TableState) -> dict[str, Any]:
        names = [name for name in self._columns(state) if name not in INTERNAL]
        rows, digest = self.engine.content(self._others(state), names)
        removed = int(state.facts["rows"]) - rows
        return {
            **state.facts,
            "rows": rows,
            "removed": int(state.facts.get("removed", 0)) + removed,
            "content_hash": content_hash(digest),
        }

    def _quarantine_facts(self, state: TableState) -> dict[str, Any]:
        rows, digest = self.engine.content(self._others(state), ["_row_no", "_rules"])
        return {**state.facts, "rows": rows, "digest": str(digest)}

    def _period_facts(self, columns: list[str], kept: str) -> dict[str, Any]:
        if "decision" in columns:
            rows, positives = self.engine.query(
                f"SELECT count(*), count(*) FILTER (decision) FROM {kept}"
            )[0]
            return {"rows": int(rows), "positives": int(positives)}
        by_event = EVENT_ROW in columns  # hashed as lifecycle/features/offline.py does
        first = [EVENT_ROW if by_event else self.key, "as_of"]
        rest = [name for name in columns if name not in {*first, self.key}]
        rows, digest = self.engine.content(kept, [*first, *rest])
        return {"rows": rows, "content_hash": content_hash(digest)}

    def _renewed(
        self, name: str, item: AcceptedSource, moved: Renumbered, shifted: Renumbered
    ) -> AcceptedSource:
        """Return what an accepted source is without the person, as its rules had left it."""
        version, hidden = moved.get(item.version, item.version), item.quarantine_version
        raw = self._accepted("raw", name, version)
        rows, broken = self.engine.scan(raw), 0
        if hidden is not None:
            hidden = shifted.get(hidden, hidden)
            held = self.engine.scan(self._accepted("quarantine", name, hidden))
            broken = int(self.engine.query(f"SELECT count(*) FROM {held}")[0][0])
            rows += f" ANTI JOIN {held} AS broken USING (_row_no)"
        source = self.context.use_case.sources.get(name)
        newest = "NULL" if source is None else f"max({quoted(source.availability)})"
        count, mark = self.engine.query(f"SELECT count(*), {newest} FROM {rows}")[0]
        return replace(
            item,
            version=version,
            quarantine_version=hidden if broken else None,
            rows=int(count),
            quarantined=broken,
            content_hash=str(raw.facts["content_hash"]),
            watermark=mark.replace(tzinfo=UTC) if mark else None,
            removed=int(raw.facts["removed"]),
        )

    # looking

    def _accepted(self, layer: str, name: str, version: int) -> TableState:
        found = self.lake.state(self.lake.table_uri(self.name, layer, name), version)
        if found is None:
            raise NotFoundError("an accepted version is gone", where=f"{layer} of source {name}")
        return found

    def _every_table(self) -> dict[str, str]:
        root = f"{self.lake.table_uri(self.name, '')}/"
        layers = (*VERSIONED, *BY_PERIOD, *ARCHIVES)
        tables = (uri for layer in layers for uri in self.lake.tables(self.name, layer))
        return {uri.removeprefix(root): uri for uri in tables}

    def _newest(self, uri: str) -> TableState:
        state = self.lake.state(uri)
        if state is None:
            raise NotFoundError("the table is gone", where=uri)
        return state

    def _at(self, uri: str, version: int) -> TableState | None:
        """Return a table at a version; None where that can be read no more."""
        newest = self.lake.state(uri)
        if newest is None or version > newest.version:  # a table that was made anew
            return None
        return self.lake.state(uri, version)

    def _columns(self, state: TableState) -> list[str]:
        return list(self.engine.columns(self.engine.scan(state)))

    def _has_key(self, state: TableState) -> bool:
        return self.key in self._columns(state)

    def _count(self, state: TableState) -> int:
        if state.files not in self._counted:
            rows = f"SELECT count(*) FROM {self.engine.scan(state)} WHERE {self._mine}"
            self._counted[state.files] = int(self.engine.query(rows)[0][0])
        return self._counted[state.files]

    def _others(self, state: TableState) -> str:
        """Return the FROM item of a table's other rows."""
        return f"(SELECT * FROM {self.engine.scan(state)} WHERE NOT {self._mine})"

    def _holds(self, uri: str, version: int) -> bool:
        state = self._at(uri, version)
        return state is not None and self._has_key(state) and self._count(state) > 0

    def _recorded(self, name: str, item: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Return the tables of a recorded source with their versions."""
        numbers = zip(VERSIONED, (item["version"], item["quarantine_version"]), strict=True)
        return [
            (self.lake.table_uri(self.name, layer, name), int(number))
            for layer, number in numbers
            if number is not None
        ]

    def _snapshots(self) -> dict[int, dict[str, Any]]:
        """Return the sources that each registered model version recorded."""
        found = {}
        for path in self.lake.artifact_folder(self.name, "").glob("*-release/metadata.json"):
            version = int(json.loads(path.read_text(encoding="utf-8"))["version"])
            snapshot = path.with_name("data_snapshot.json").read_text(encoding="utf-8")
            found[version] = json.loads(snapshot)["sources"]
        return dict(sorted(found.items()))
