"""Files that are written whole: beside their place, then renamed over it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, document: Mapping[str, Any], *, is_sorted: bool = True) -> None:
    """Write JSON atomically; canonical, with sorted keys, unless their order means something."""
    work = path.with_suffix(".partial")
    text = json.dumps(document, sort_keys=is_sorted, indent=1, allow_nan=False, default=str)
    work.write_text(text + "\n", encoding="utf-8")
    work.replace(path)
