"""What is stored with a model scores it without this project."""

import json
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from mlops_pipeline.config.modelling import Candidate
from mlops_pipeline.core.modelling.fitting import Fitting, Rows, encode_rows, learn_inputs
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.features.history import get_historical_features
from mlops_pipeline.lifecycle.packaging import framework, packaged
from mlops_pipeline.stores.models.files import write_files
from mlops_pipeline.stores.models.mlflow import SCRIPT
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.core.modelling.example_models import RECIPES, fitted, frame
from mlops_pipeline_tests.worlds import World, accept_all, advance, on, shop, utc, visit

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


def plain_mlflow(folder: Path, model: ScoringModel) -> Any:
    """A model as plain MLflow loads it: with its schema in front."""
    from mlops_pipeline.stores.models.mlflow import _signature

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


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return plain_mlflow(tmp_path_factory.mktemp("plain"), fitted("logistic"))


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


# what the feature store hands out

SMALL: dict[str, dict[str, Any]] = {"logistic": {}, "lightgbm": {"trees": 5, "min_leaf_rows": 3}}
STORED: dict[str, dict[str, Any]] = {
    "spent": {"aggregate": "sum", "of": "amount"},
    "visits": {"aggregate": "count", "dtype": "int64"},
    "most_units": {"aggregate": "max", "of": "units", "dtype": "int64"},  # missing without a visit
    "is_web": {"aggregate": "last", "of": "kind = 'web'", "dtype": "boolean"},  # and so are these
    "kind": {"aggregate": "last", "of": "kind", "dtype": "string"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> World:
    case = shop(views={"history": {"source": "visits", "columns": STORED}}, protected={})
    world = World(case, tmp_path_factory.mktemp("store"))
    kinds = ["shop", "web", "shop"]
    rows = [
        visit(on(1, 1 + day), customer, amount=customer + day, units=day, kind=kinds[customer % 3])
        for customer in range(40)
        for day in range(1 + customer % 5)
    ]
    world.deliver("visits", rows)
    accept_in_store(world)
    return world


def accept_in_store(world: World) -> None:
    with world.open() as work:
        advance(work, utc(on(3)), utc(on(3)))
        accepted = {name: item.to_dict() for name, item in accept_all(work).items()}
    with OpsDatabase.open(world.settings.database_url) as ops:
        set_pointer(ops, "shop", "accepted", accepted, run_id="test", now=utc(on(3)))


def handed_out(store: World) -> Any:
    """Features as a data frame, and as an Arrow table; the last two entities have no row."""
    import pandas as pd

    rows = pd.DataFrame({"customer": [*range(40), 98, 99], "as_of": pd.Timestamp("2025-02-01")})
    given = {"settings": store.settings}
    names = list(STORED)
    return (
        get_historical_features(store.use_case, rows, names, **given),
        get_historical_features(store.use_case, pa.Table.from_pandas(rows), names, **given),
    )


@pytest.mark.filterwarnings("ignore:.*type hints")
@pytest.mark.parametrize("kind", ["logistic", "lightgbm"])
def test_model_takes_the_features_that_the_store_hands_out_in_every_dtype(
    kind: str, store: World, tmp_path: Path
) -> None:
    import pandas as pd

    frame, table = handed_out(store)
    columns = {
        name: np.array(table.column(name).to_pylist(), dtype=object if name == "kind" else float)
        for name in STORED
    }
    columns = {
        name: values if name == "kind" else values.astype(np.float32)
        for name, values in columns.items()
    }
    every, label = np.arange(42), (np.arange(42) % 3 == 1).astype(np.int8)
    inputs = learn_inputs(columns, list(STORED), every)
    rows = Rows(encode_rows(inputs, columns, every), label)
    recipe: Any = TypeAdapter(Candidate).validate_python({"kind": kind, **SMALL[kind]})
    model = Fitting(kind, recipe, inputs, rows, None, balanced=False, seed=3, threads=1).fit().model
    plain = plain_mlflow(tmp_path, model)
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    nullable |= {pa.float64(): pd.Float64Dtype(), pa.string(): pd.StringDtype()}
    forms = {
        "as handed out": frame,
        "from Arrow": table.to_pandas(),
        "nullable": table.to_pandas(types_mapper=nullable.get),
        "Arrow's types": table.to_pandas(types_mapper=pd.ArrowDtype),
        "category": table.to_pandas().astype({"kind": "category"}),
    }
    expected = model.predict(columns)
    assert len(set(expected.tolist())) > 2
    for name, form in forms.items():
        said = plain.predict(form[list(STORED)])["probability"]
        np.testing.assert_allclose(said, expected, rtol=1e-12, err_msg=name)
