"""Taking column values out of a Delta log: the least and greatest of each file's columns.

Delta writes them into the log for every file, and keeps them when the file is gone. They only
save readers from looking into files, and the protocol lets a log do without them. Belongs here:
rewriting a log in place. Who may be writing meanwhile is kept away by the lease.
"""

import json
from pathlib import Path
from typing import Any

from mlops_pipeline.errors import StateError

KEPT = ("as_of", "_row_no")  # columns that tell of no person, and by which files are found


def strip_values(table: Path) -> None:
    """Rewrite a local table's log without values of columns; versions and facts stay.

    Raises
    ------
    StateError
        When the log does not begin at version 0: its checkpoints could not be made again.
    """
    from deltalake import DeltaTable

    log = table / "_delta_log"
    for left in table.rglob("*#*"):  # what a killed writer had not put into its place
        left.unlink()
    commits = sorted(log.glob("*.json"))
    for commit in commits:
        text = commit.read_text(encoding="utf-8")
        stripped = "".join(f"{_without_values(line)}\n" for line in text.splitlines())
        if stripped != text:
            work = commit.with_suffix(".partial")
            work.write_text(stripped, encoding="utf-8")
            work.replace(commit)
    checkpoints = [log / "_last_checkpoint", *log.glob("*.checkpoint*")]
    if not any(path.exists() for path in checkpoints):
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
        path.unlink(missing_ok=True)
    DeltaTable(str(table)).create_checkpoint()


def _without_values(line: str) -> str:
    action: dict[str, Any] = json.loads(line)
    found = [item for name in ("add", "remove") if (item := action.get(name)) and item.get("stats")]
    for item in found:
        stats = json.loads(item["stats"])
        for bound in ("minValues", "maxValues"):
            held = stats.get(bound, {})
            stats[bound] = {name: held[name] for name in KEPT if name in held}
        item["stats"] = json.dumps(stats, separators=(",", ":"))
    return json.dumps(action, separators=(",", ":")) if found else line
