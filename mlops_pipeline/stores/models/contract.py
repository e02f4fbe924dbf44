"""The script that is stored with a model, and its test: plain MLflow, in a fresh process."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlops_pipeline.errors import ContractError
from mlops_pipeline.stores.models.mlflow import QUIET, SCRIPT

TOLERANCE = 1e-12  # the same library reads the same numbers: differences are a broken store
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
texts = {name: "category" for name, kind in rows["types"].items() if kind == "category"}
for other in (frame.convert_dtypes(), frame.astype(texts)):  # what a feature store hands out
    if not model.predict(other).equals(said):
        raise SystemExit("the scores depend on the types of the columns")
names = ["probability", "decision", "needs_review"]
print("RESULT" + json.dumps([[float(value) for value in said[name]] for name in names]))
"""


def model_script(sources: Sequence[Path]) -> str:
    """Return the script stored with a model: how it is scored, and the MLflow class behind it."""
    texts = [_OURS.sub("", path.read_text(encoding="utf-8")) for path in (*sources, _TAIL)]
    return "\n\n".join((*texts, "set_model(PyfuncModel(ScoringModel.of_files))\n"))


def check_contract(
    model_folder: Path, script: str, example: Path, expected: Any, *, timeout_s: int
) -> None:
    """Load a stored model in a fresh process, its script known by hash; compare its example."""
    import numpy as np

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
    try:
        done = subprocess.run(  # noqa: S603 # our own interpreter and script
            [sys.executable, "-c", _RUNNER, str(model_folder), str(example)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=model_folder,
            env={**os.environ, **QUIET, "PYTHONWARNINGS": "ignore"},
        )
    except subprocess.TimeoutExpired as error:
        raise ContractError(
            "the stored model did not load and score in time in a fresh process",
            where=str(model_folder),
            expected=f"an answer within {timeout_s} s",
            found="none",
            way_out="run again when the machine is less busy, or raise MLOPS_CONTRACT_TIMEOUT_S",
        ) from error
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
