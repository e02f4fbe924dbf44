"""The contract test of a stored model: plain MLflow, a fresh process, none of our code.

The script of the stored model is compared with its known hash before anything runs it.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.core.modelling import scoring
from mlops_pipeline.errors import ContractError
from mlops_pipeline.stores.models.tracking import QUIET

TOLERANCE = 1e-12  # the same library reads the same numbers: differences are a broken store
TIMEOUT_S = 180
QUANTILES = (0.1, 0.35, 0.65, 0.9)  # that the example takes of each number
EXAMPLE_ROWS = 10_000  # that they are taken of
SCRIPT = "model_script.py"
_TAIL = Path(__file__).with_name("pyfunc_tail.py")
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


def model_script() -> str:
    """Return the script stored with each model: scoring.py, and the MLflow class behind it."""
    tail = _TAIL.read_text(encoding="utf-8").replace(
        "from mlops_pipeline.core.modelling.scoring import ScoringModel\n", ""
    )
    return Path(scoring.__file__).read_text(encoding="utf-8") + "\n\n" + tail


def column_types(model: scoring.ScoringModel) -> dict[str, str]:
    """Return the columns that a model is given, inputs and attributes, with their types."""
    inputs = {item["name"]: item["type"] for item in model.document["inputs"]}
    return {**dict.fromkeys(model.attributes, "category"), **inputs}


def input_example(
    model: scoring.ScoringModel, columns: Any, hidden: Collection[str] = ()
) -> dict[str, Any]:
    """Return made-up rows as plain JSON: columns, data, types; missing values are null.

    No row is anybody's: each input goes through quantiles of its numbers, or its commonest texts,
    by itself, and is missing in the last row; a protected attribute that decisions need goes
    through the groups that the model knows. Inputs in `hidden` are missing in every row.
    """
    types, rows = column_types(model), len(QUANTILES)
    values: dict[str, list[Any]] = {
        name: [None] * rows if name in hidden else _typical(columns[name])
        for name in types
        if name not in model.attributes
    }
    groups = [each for group in _groups(model) for each in group]
    for position, name in enumerate(model.attributes):
        values[name] = [groups[row % len(groups)][position] for row in range(rows)]
    data = [list(row) for row in zip(*(values[name] for name in types), strict=True)]
    return {"columns": list(types), "types": types, "data": [*data, [None] * len(types)]}


def _groups(model: scoring.ScoringModel) -> list[list[list[str]]]:
    found: list[list[list[str]]] = model.document.get("thresholds", {}).get("groups", [])
    return found


def _typical(values: npt.NDArray[Any]) -> list[Any]:
    """Return one value of a column for each quantile."""
    drawn = values[:: max(1, len(values) // EXAMPLE_ROWS)]
    if drawn.dtype == object:
        common = [text for text, _ in Counter(drawn).most_common() if text is not None]
        return (common * len(QUANTILES) or [None] * len(QUANTILES))[: len(QUANTILES)]
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return [None] * len(QUANTILES)
    return [float(np.float32(value)) for value in np.quantile(known, QUANTILES)]


def example_columns(example: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Return an input example as columns for ScoringModel."""
    columns = {}
    for index, name in enumerate(example["columns"]):
        values = [row[index] for row in example["data"]]
        if example["types"][name] == "category":
            columns[name] = np.asarray(values, dtype=object)
        else:
            columns[name] = np.asarray(
                [np.nan if value is None else value for value in values], dtype=np.float32
            )
    return columns


def check_contract(model_folder: Path, example_path: Path, decided: scoring.Decisions) -> None:
    """Load a stored model with plain MLflow in a fresh process; compare scores and decisions.

    Raises
    ------
    ContractError
        When the script is not the known one, the model does not load, or it scores or decides
        differently.
    """
    script = (model_folder / SCRIPT).read_text(encoding="utf-8")
    known, found = (hashlib.sha256(text.encode()).hexdigest() for text in (model_script(), script))
    if known != found:
        raise ContractError(
            "the stored model's script is not the one this project writes",
            where=str(model_folder / SCRIPT),
            expected=known,
            found=found,
            way_out="do not load this model; train it again",
        )
    done = subprocess.run(  # noqa: S603 # our own interpreter and script
        [sys.executable, "-c", _RUNNER, str(model_folder), str(example_path)],
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
    expected = np.asarray([decided.probability, decided.decision, decided.needs_review], float)
    if scores.shape != expected.shape or np.abs(scores - expected).max() > TOLERANCE:
        raise ContractError(
            "the stored model scores differently in a fresh process",
            where=str(model_folder),
            expected=str(expected.tolist()),
            found=str(scores.tolist()),
        )


def _environment() -> dict[str, str]:
    return {**os.environ, **QUIET, "PYTHONWARNINGS": "ignore"}
