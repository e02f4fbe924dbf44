"""Versioned tables (Delta) and files of the lake: the only place that knows their layout.

    <lake>/<use_case>/raw/<source>           every ingested row, append-only, system-versioned
    <lake>/<use_case>/quarantine/<source>    rows that broke a rule, with the rule
    <lake>/<use_case>/features/<definition>  one commit per period
    <lake>/<use_case>/predictions            batch scores, one commit per period and version
    <lake>/<use_case>/trial_predictions      the same of versions in staging: they decide nothing
    <lake>/<use_case>/prediction_log         what the log of predictions held, every answer once
    <lake>/<use_case>/artifacts/<id>/        files of one training: models, report, documents

Facts about a commit (watermark, rows, periods) travel in the Delta commit's own metadata, so
that data and facts move together.
"""

import json
import os
import re
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.stores.files import file_digests, new_file, new_folder

FACTS = "mlops_facts"  # the key of our own facts in a commit's metadata
REWRITTEN = "rewritten"  # the key that marks facts of a period written again without a person
COMMIT_ATTEMPTS = 5
ROW_GROUP_ROWS = 122_880  # as DuckDB writes: held in memory until whole, and read by one thread
SCHEMA_MODES = {"append": None, "extend": "merge", "overwrite": "overwrite"}
VERSIONED = ("raw", "quarantine")  # layers with rows of entities: others point at their versions
BY_PERIOD = ("features", "predictions", "trial_predictions")  # and those with a commit a period
ARCHIVE, SHADOW_ARCHIVE = "prediction_log", "shadow_predictions"
ARCHIVES = (ARCHIVE, SHADOW_ARCHIVE)  # and those that the log of predictions is written to
STATISTICS = "delta.dataSkippingStatsColumns"  # of others, the log would hold values of people
PROPERTIES = {
    # old commits say which periods are finished, and pin what a model was made from
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    STATISTICS: "as_of,_row_no",  # tell of no person, and files are found by them
}


@dataclass(frozen=True)
class TableState:
    """A Delta table at one version."""

    uri: str
    version: int
    files: tuple[str, ...]
    facts: Mapping[str, Any]


class Lake:
    """The lake below one address (a local folder, or object storage by URI)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    def table_uri(self, use_case: str, layer: str, name: str = "") -> str:
        """Return the address of a table."""
        return "/".join(part for part in (self.uri, use_case, layer, name) if part)

    def state(self, uri: str, version: int | None = None) -> TableState | None:
        """Return files and facts at a version; None: no table, or erased with a person."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            table = DeltaTable(uri, version=version)
        except TableNotFoundError:
            return None
        except Exception as error:
            if version is None or not DeltaTable.is_deltatable(uri):
                raise
            what = f"version {version} of the table does not exist"
            raise NotFoundError(what, where=uri) from error
        # a table loaded at an older version numbers its history wrong
        newest = table if version is None else DeltaTable(uri)
        at = table.version()
        commits = (entry for entry in newest.history() if entry["version"] <= at)
        facts = json.loads(next((entry[FACTS] for entry in commits if FACTS in entry), "{}"))
        files = tuple(sorted(table.file_uris()))
        if version is not None and "://" not in uri and not all(map(os.path.exists, files)):
            return None
        return TableState(uri, at, files, facts)

    def tables(self, use_case: str, layer: str) -> list[str]:
        """Return the addresses of a layer's tables, also of sources that are configured no more."""
        folder = self.local() / use_case / layer
        return [str(path.parent) for path in sorted(folder.glob("**/_delta_log"))]

    def digests(self, uri: str, version: int, known: Mapping[str, str]) -> dict[str, str]:
        """Return the sha256 of the files that a version is read from, by path in the table.

        They are its data and the log up to it; what is `known` is not read, unless some of it is
        gone: then the table was made anew.
        """
        known = known if all(Path(uri, name).is_file() for name in known) else {}
        state = self.state(uri, version)
        if state is None:
            raise NotFoundError("files of an accepted version are gone", where=f"{uri} @ {version}")
        paths = [*map(Path, state.files), *Path(uri, "_delta_log").glob("*[0-9].*")]
        names = {str(path.relative_to(uri)) for path in paths if _number(path) <= version}
        new = file_digests(Path(uri), names - {*known})
        return {**{name: known[name] for name in names & {*known}}, **new}

    def commit_metadata(self, uri: str) -> list[dict[str, Any]]:
        """Return the facts of every commit, oldest first; each with its `version`."""
        from deltalake import DeltaTable

        if not DeltaTable.is_deltatable(uri):
            return []
        return [
            {**json.loads(entry[FACTS]), "version": entry["version"]}
            for entry in reversed(DeltaTable(uri).history())
            if FACTS in entry
        ]

    def write(
        self,
        uri: str,
        batches: Any,
        facts: Mapping[str, Any],
        mode: Literal["append", "extend", "overwrite"],
        *,
        where: str | None = None,
    ) -> int:
        """Write Arrow batches as one commit; return the new version. All or nothing.

        `extend` appends, and a new column is missing in the earlier rows. With `where`, a
        condition on columns, only the rows that satisfy it are overwritten.
        """
        from deltalake import DeltaTable, write_deltalake

        write_deltalake(
            uri,
            batches,
            mode="append" if mode == "extend" else mode,
            schema_mode=SCHEMA_MODES[mode] if where is None else None,
            predicate=where,
            configuration=PROPERTIES,
            writer_properties=_encoding(batches.schema),
            commit_properties=_commit(facts),
        )
        return int(DeltaTable(uri).version())

    def find_row(self, uri: str, column: str, value: str) -> dict[str, Any] | None:
        """Return the newest version's row with a value, found by statistics; None: no row."""
        from deltalake import DeltaTable

        if not DeltaTable.is_deltatable(uri):
            return None
        import pyarrow.dataset as arrow

        rows = DeltaTable(uri).to_pyarrow_dataset()
        found = rows.to_table(filter=arrow.field(column) == value).to_pylist()
        return found[0] if found else None

    def supersede(self, uri: str, rows: Any, facts: Mapping[str, Any]) -> int:
        """Insert rows and close the ones they replace, in one commit; return the version.

        `rows` is an Arrow table with one more column, `_is_stored`: true for a row that the table
        holds (by `_row_no`) and whose `_superseded_at` changes, false for a new one.
        """
        from deltalake import DeltaTable

        table = DeltaTable(uri)
        every = {name: f's."{name}"' for name in rows.column_names if name != "_is_stored"}
        (
            table.merge(
                rows,
                "t._row_no = s._row_no AND s._is_stored",
                source_alias="s",
                target_alias="t",
                commit_properties=_commit(facts),
            )
            .when_matched_update({"_superseded_at": "s._superseded_at"})
            .when_not_matched_insert(every, predicate="NOT s._is_stored")
            .execute()
        )
        return int(DeltaTable(uri).version())

    def purge(self, uri: str, *, keep: Collection[int] = ()) -> None:
        """Delete every file that is neither of the newest version nor of one of `keep`."""
        from deltalake import DeltaTable

        table = DeltaTable(uri)
        table.vacuum(
            0, dry_run=False, enforce_retention_duration=False, full=True, keep_versions=[*keep]
        )
        for left in Path(uri).rglob("*#*"):  # what a killed writer had not put into its place
            left.unlink()
        if STATISTICS not in table.metadata().configuration:
            _remove_statistics(Path(uri))

    def artifact_folder(self, use_case: str, name: str) -> Path:
        """Return the folder of an artifact set; it may not exist yet."""
        return self.local() / use_case / "artifacts" / name

    def documents_folder(self, use_case: str, fingerprint: str) -> Path:
        """Return the folder of a released version's documents; it may not exist yet."""
        return self.artifact_folder(use_case, f"{fingerprint}-release")

    def new_artifacts(self, use_case: str, name: str) -> AbstractContextManager[Path]:
        """Yield an empty folder that takes its place whole on success, replacing an older one."""
        return new_folder(self.artifact_folder(use_case, name))

    def local(self) -> Path:
        """Return the folder for artifact files: the lake itself, when it is a local one."""
        if re.match(r"^[a-z0-9+]{2,}://", self.uri):
            raise NotFoundError(
                "artifact files need a local lake",
                where=self.uri,
                way_out="object storage holds tables today; set MLOPS_LAKE_URI to a folder",
            )
        return Path(self.uri)


def _number(path: Path) -> int:
    """Return the version that a file of the log belongs to; -1 for a data file."""
    return int(path.name.partition(".")[0]) if path.parent.name == "_delta_log" else -1


def _encoding(schema: Any) -> Any:
    """Return how Parquet is written: dictionaries for texts only, as numbers seldom repeat."""
    import pyarrow.types as arrow
    from deltalake import ColumnProperties, WriterProperties

    texts = {
        field.name: ColumnProperties(dictionary_enabled=True)
        for field in schema
        if arrow.is_string(field.type) or arrow.is_large_string(field.type)
    }
    return WriterProperties(
        max_row_group_size=ROW_GROUP_ROWS,
        compression="SNAPPY",
        default_column_properties=ColumnProperties(dictionary_enabled=False),
        column_properties=texts,
    )


def _commit(facts: Mapping[str, Any]) -> Any:
    from deltalake import CommitProperties

    return CommitProperties(
        custom_metadata={FACTS: json.dumps(facts, sort_keys=True, default=str)},
        max_commit_retries=COMMIT_ATTEMPTS,
    )


def _remove_statistics(table: Path) -> None:
    """Take values of columns out of the log of a table that was made without STATISTICS."""
    from deltalake import DeltaTable

    log = table / "_delta_log"
    commits = sorted(log.glob("*.json"))
    for commit in commits:
        actions = map(json.loads, commit.read_text(encoding="utf-8").splitlines())
        lines = [json.dumps(_without_statistics(action)) + "\n" for action in actions]
        with new_file(commit) as work:
            work.write_text("".join(lines), encoding="utf-8")
    checkpoints = [path for path in log.glob("*checkpoint*") if path.suffix != ".json"]
    if not checkpoints:
        return
    if int(commits[0].stem) != 0:
        raise StateError(
            "a table's log lost its first versions, so that values cannot be taken out of it",
            where=str(log),
            expected="a log from version 0 on",
            found=commits[0].name,
            way_out="copy the table's rows into a new table without the person",
        )
    for path in checkpoints:
        path.unlink()
    DeltaTable(str(table)).create_checkpoint()


def _without_statistics(action: dict[str, Any]) -> dict[str, Any]:
    kept = ("numRecords", "tightBounds")
    for name in ("add", "remove"):
        if stats := (action.get(name) or {}).get("stats"):
            found = {key: value for key, value in json.loads(stats).items() if key in kept}
            action[name]["stats"] = json.dumps(found)
    return action
