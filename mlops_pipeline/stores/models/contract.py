"""The stored model's script and contract test: plain MLflow, a fresh process, none of our code.

The script of the stored model is compared with its known hash before anything runs it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlops_pipeline.errors import ContractError
from mlops_pipeline.stores.models.tracking import QUIET

TOLERANCE = 1e-12  # the same library reads the same numbers: differences are a broken store
TIMEOUT_S = 180
SCRIPT = "model_script.py"
_TAIL = Path(__file__).with_name("pyfunc_tail.py")
_OURS = re.compile(r"^from mlops_pipeline\b.*? import (?:\([^)]*\)|[^(\n]*)\n", re.MULTILINE)
_RUNNER = """
import json, sys
class NoProject:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mlops_pipeline":
            raise ImportError("the stored model must not need this project")
sys.meta_path.insert(0, NoProject())
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = json.load(open(sys.argv[2]))
frame = pandas.DataFrame(rows["data"], columns=rows["columns"])
for name, kind in rows["types"].items():
    frame[name] = frame[name].astype("object" if kind == "category" else "float64")
said = model.predict(frame)
names = ["probability", "decision", "needs_review"]
print("RESULT" + json.dumps([[float(value) for value in said[name]] for name in names]))
"""


@dataclass(frozen=True)
class Package:
    """What plain MLflow needs of a model: its files, script, inputs (name: type), packages."""

    files: Mapping[str, str]
    script: str
    inputs: Mapping[str, str]
    requirements: Sequence[str]


def model_script(sources: Sequence[Path]) -> str:
    """Return the script stored with a model: how it is scored, and the MLflow class behind it."""
    texts = [_OURS.sub("", path.read_text(encoding="utf-8")) for path in (*sources, _TAIL)]
    return "\n\n".join((*texts, "set_model(PyfuncModel(ScoringModel.of_files))\n"))


def check_contract(model_folder: Path, script: str, example: Path, expected: npt.ArrayLike) -> None:
    """Load a stored model with plain MLflow in a fresh process and compare its example."""
    stored = (model_folder / SCRIPT).read_text(encoding="utf-8")
    known, found = (hashlib.sha256(text.encode()).hexdigest() for text in (script, stored))
    if known != found:
        raise ContractError(
            "the stored model's script is not the one this project writes",
            where=str(model_folder / SCRIPT),
            expected=known,
            found=found,
            way_out="do not load this model; train it again",
        )
    done = subprocess.run(  # noqa: S603 # our own interpreter and script
        [sys.executable, "-c", _RUNNER, str(model_folder), str(example)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=model_folder,
        env=_environment(),
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if done.returncode != 0 or not lines:
        raise ContractError(
            "the stored model does not load and score in a fresh process",
            where=str(model_folder),
            found=done.stderr.strip()[-800:],
        )
    scores = np.asarray(json.loads(lines[-1].removeprefix("RESULT")))
    wanted = np.asarray(expected, dtype=np.float64)
    if scores.shape != wanted.shape or not np.abs(scores - wanted).max() <= TOLERANCE:
        raise ContractError(
            "the stored model scores differently in a fresh process",
            where=str(model_folder),
            expected=str(wanted.tolist()),
            found=str(scores.tolist()),
        )


def _environment() -> dict[str, str]:
    return {**os.environ, **QUIET, "PYTHONWARNINGS": "ignore"}
