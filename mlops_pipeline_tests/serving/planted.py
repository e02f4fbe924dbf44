"""The commands with a fault planted in the version in trial, which a file names while it lasts.

    python -m mlops_pipeline_tests.serving.planted serve shop --port 8000

Only what a version says of a row is changed: the service around it is the real one.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from mlops_pipeline.core.modelling.row_scorer import Decision
from mlops_pipeline.lifecycle.live_models import LiveModel

FAULT_FILE = "MLOPS_TEST_FAULT_FILE"  # in the environment
TRIED = 2  # the version that has the fault
SLOW_S, SLOW_MS = 0.08, 40.0  # so long it takes, and what a policy allows that is to see it


def _fails(_: Decision, __: Mapping[str, Any]) -> Decision:
    raise ArithmeticError("planted")


def _waits(found: Decision, _: Mapping[str, Any]) -> Decision:
    time.sleep(SLOW_S)
    return found


def _said(found: Decision, probability: float) -> Decision:
    is_yes = probability >= found.threshold
    return found._replace(probability=probability, decision=is_yes)


def _shifts(found: Decision, _: Mapping[str, Any]) -> Decision:
    return _said(found, 1 - (1 - found.probability) * 0.3)


def _guesses(found: Decision, values: Mapping[str, Any]) -> Decision:
    """Give a score that is right on average, and knows nothing of the entity."""
    is_other = crc32(repr(sorted(values.items())).encode()) % 2 == 0
    return _said(found, 1 - found.probability) if is_other else found


def _discriminates(found: Decision, values: Mapping[str, Any]) -> Decision:
    return _said(found, found.threshold if values["last_kind"] == "web" else 0.01)


FAULTS: Mapping[str, Callable[[Decision, Mapping[str, Any]], Decision]] = {
    "errors": _fails,
    "latency": _waits,
    "shifted scores": _shifts,
    "worse labels": _guesses,
    "unfairness": _discriminates,
}


def plant(path: Path) -> None:
    """Let the version in trial do what the file says."""
    honest = LiveModel.score

    def score(self: LiveModel, values: Mapping[str, Any]) -> Decision:
        found = honest(self, values)
        fault = path.read_text() if self.version == TRIED and path.is_file() else ""
        return FAULTS[fault](found, values) if fault else found

    LiveModel.score = score  # type: ignore[method-assign] # that is the fault


if __name__ == "__main__":
    from mlops_pipeline.cli.app import main

    plant(Path(os.environ[FAULT_FILE]))
    main()
