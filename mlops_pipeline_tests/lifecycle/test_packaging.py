"""What is stored with a model scores it without this project."""

import json
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model as plain MLflow loads it: with its schema in front."""
    from mlops_pipeline.stores.models.mlflow import _signature

    folder, model = tmp_path_factory.mktemp("plain"), fitted("logistic")
    package = packaged(model)
    (folder / SCRIPT).write_text(package.script)
    write_files(folder / "model", model.files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns about its own type hints
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            str(folder / "stored"),
            python_model=str(folder / SCRIPT),
            artifacts={"model": str(folder / "model")},
            signature=_signature(package.inputs),
            pip_requirements=[],
        )
        return mlflow.pyfunc.load_model(str(folder / "stored"))


def rows_of() -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "amount": [12.5, None, 40.0],
            "tickets": [0, 3, 1],
            "plan": ["plus", None, "basic"],
            "noise": [True, False, True],
        }
    )


@pytest.mark.filterwarnings("ignore:.*type hints")
@pytest.mark.parametrize(
    "types",
    [
        {"tickets": "int64", "noise": "bool"},
        {"tickets": "Int64", "noise": "boolean", "amount": "Float64", "plan": "string"},
        {"tickets": "int8", "noise": "float32", "plan": "category"},
        {"tickets": "object", "amount": "object"},
    ],
)
def test_model_takes_what_a_feature_store_hands_out(loaded: Any, types: dict[str, str]) -> None:
    frame = rows_of()
    plain = frame.astype({"tickets": "float64", "noise": "float64"})
    assert loaded.predict(frame.astype(types)).equals(loaded.predict(plain))


def test_model_takes_missing_values_of_every_type(loaded: Any) -> None:
    import pandas as pd

    gone = rows_of().astype({"tickets": "Int64", "noise": "boolean", "plan": "category"})
    gone.loc[0, ["amount", "tickets", "noise", "plan"]] = pd.NA
    said = loaded.predict(gone)
    assert said["probability"].notna().all()


def test_model_names_every_column_that_is_missing(loaded: Any) -> None:
    with pytest.raises(ValueError, match="amount, plan"):
        loaded.predict(rows_of()[["tickets", "noise"]])
