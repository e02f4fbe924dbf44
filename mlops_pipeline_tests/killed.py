"""SIGKILL at a chosen line of the package, in the process that is to be killed."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

KILL_AT = "MLOPS_TEST_KILL_AT"  # in the environment of a command; 0: only count the lines
PACKAGE = str(Path(__file__).parents[1] / "mlops_pipeline") + os.sep
PARTS = ("cli/approvals", "lifecycle", "orchestration/asset_run", "stores")
COUNTED = tuple(PACKAGE + part for part in PARTS)
OFTEN = 12  # times that a line counts: a long loop is no more than others
LEFT_OUT = ("settings.py", "declarations.py", "address.py")  # they write nothing


@contextmanager
def killed_at(environment: Mapping[str, str], counted: Path) -> Iterator[None]:
    """Count the lines that write or decide, die at one of them; at the end, note how many."""
    if KILL_AT not in environment:
        yield
        return
    lines, last = 0, int(environment[KILL_AT])
    seen: Counter[tuple[CodeType, int]] = Counter()

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if event == "line" and seen[frame.f_code, frame.f_lineno] < OFTEN:
            seen[frame.f_code, frame.f_lineno] += 1
            lines += 1
            if lines == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        is_ours = code.co_filename.startswith(COUNTED) and not code.co_filename.endswith(LEFT_OUT)
        return on_line if is_ours and code.co_flags & CO_OPTIMIZED else None  # not at import

    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(None)
        counted.write_text(str(lines))
