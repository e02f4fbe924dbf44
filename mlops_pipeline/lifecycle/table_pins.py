"""Which bytes of the lake's tables were accepted: digests of their files, pinned in the ledger.

Belongs here: the pointer `tables`, {layer/name: version, files}. The files of a Delta table never
change, so each is read once, when a version that has it is accepted, and again by
`mlops audit verify`.
"""

from collections.abc import Mapping
from typing import Any

from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.context import Accepted
from mlops_pipeline.stores.lake.tables import VERSIONED, Lake
from mlops_pipeline.stores.ops import Ledger

TABLES = "tables"  # the name of the pointer
Pins = dict[str, dict[str, Any]]


def pinned_tables(
    ops: Ledger, lake: Lake, use_case: str, versions: Mapping[str, int], *, fresh: bool = False
) -> Pins:
    """Return the pointer with these tables in place of their layers'; `fresh` reads all files."""
    before = get_pointer(ops, use_case, TABLES)
    pins: Pins = dict(before.value) if before else {}
    layers = {name.partition("/")[0] for name in versions}
    kept = {name: pin for name, pin in pins.items() if name.partition("/")[0] not in layers}
    for name, version in versions.items():
        known: Mapping[str, str] = pins.get(name, {}).get("files", {})
        if fresh:
            known = {path: digest for path, digest in known.items() if "_delta_log" not in path}
        found = lake.digests(lake.table_uri(use_case, name), version, known)
        kept[name] = {"version": version, "files": found}
    return kept


def accepted_tables(accepted: Accepted) -> dict[str, int]:
    """Return the raw and quarantine tables of what is accepted, with their versions."""
    numbers = {
        f"{layer}/{name}": number
        for name, item in accepted.items()
        for layer, number in zip(VERSIONED, (item.version, item.quarantine_version), strict=True)
    }
    return {name: number for name, number in numbers.items() if number is not None}
