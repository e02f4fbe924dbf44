"""What is stored with a model scores it without this project."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from mlops_pipeline.lifecycle.packaging import framework, packaged
from mlops_pipeline.stores.models.files import write_files
from mlops_pipeline.stores.models.mlflow import SCRIPT
from mlops_pipeline_tests.core.modelling.example_models import RECIPES, fitted, frame

ALONE = """
import json, sys
from pathlib import Path
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mlops_pipeline", "mlflow", "pandas", "sklearn"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
import numpy as np
script = Path(sys.argv[1]).read_text()
names = {"__name__": "script"}
exec(script[: script.rindex('\"\"\"The MLflow face')], names)
files = {path.name: path.read_text() for path in Path(sys.argv[2]).iterdir()}
model = names["ScoringModel"].of_files(files)
columns = {
    name: np.array(values, dtype=object if name == "plan" else np.float32)
    for name, values in json.loads(sys.argv[3]).items()
}
print(json.dumps(model.predict(columns).tolist()))
"""


@pytest.mark.parametrize("kind", RECIPES)
def test_stored_script_scores_without_this_project(kind: str, tmp_path: Path) -> None:
    model = fitted(kind)
    package = packaged(model)
    (tmp_path / SCRIPT).write_text(package.script)
    write_files(tmp_path / "model", package.files)
    columns = {name: values[:20] for name, values in frame().columns.items()}
    given = json.dumps({name: values.tolist() for name, values in columns.items()})
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / SCRIPT, tmp_path / "model", given],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(json.loads(done.stdout), model.predict(columns))
    assert "import mlops_pipeline" not in package.script
    assert "from mlops_pipeline" not in package.script


def test_packages_are_those_that_score_and_the_framework_is_what_fitted() -> None:
    logistic, forest = fitted("logistic"), fitted("random_forest")
    assert packaged(logistic).requirements == [
        f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas")
    ]
    assert packaged(forest).requirements[-1] == f"lightgbm=={version('lightgbm')}"
    assert framework(logistic) == {"name": "scikit-learn", "version": version("scikit-learn")}
    assert framework(forest)["name"] == "lightgbm"
    assert framework(fitted("dummy"))["name"] == "numpy"
