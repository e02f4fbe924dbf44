"""The champion as MLflow has it: plain MLflow loads it, and no person is in its files."""

import json
import os
import re
import subprocess
import sys

from mlops_pipeline_tests.world import World

PLAIN_MLFLOW = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mlops_pipeline":
            raise ImportError("this project is not installed here")
sys.meta_path.insert(0, Blocked())
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/churn@champion")
rows = json.load(open(sys.argv[2]))
frame = pandas.DataFrame(rows["data"], columns=rows["columns"])
for name, kind in rows["types"].items():
    frame[name] = frame[name].astype("object" if kind == "category" else "float64")
print("SCORES", json.dumps([float(value) for value in model.predict(frame)["probability"]]))
"""
STORE_TO_CHAMPION = """
import json, os, pathlib, sys
import mlflow, pandas, pyarrow
from mlops_pipeline.config import load_use_case
from mlops_pipeline.lifecycle.features.history import get_historical_features
from mlops_pipeline.stores.settings import Settings
settings = Settings.from_environment(os.environ)
case = load_use_case(pathlib.Path("configs/churn.yaml"))
ids = pandas.read_parquet(sys.argv[1])["customer_id"].unique()[:50]
rows = pandas.DataFrame({"customer_id": ids, "as_of": pandas.Timestamp("2024-02-01")})
frame = get_historical_features(case, rows, case.features, settings=settings)
table = get_historical_features(
    case, pyarrow.Table.from_pandas(rows), case.features, settings=settings
)
mlflow.set_tracking_uri(settings.mlflow_uri)
model = mlflow.pyfunc.load_model("models:/churn@champion")
forms = [frame, table.to_pandas(), table.to_pandas(types_mapper=pandas.ArrowDtype)]
print("SCORES", json.dumps([model.predict(form)["probability"].tolist() for form in forms]))
"""
TEXTS = {".csv", ".json", ".md", ".txt", ".yaml", ".yml", ".py", ".html", ".lock"}
PERSONAL = r"\b(gender|age_band|region)\b"  # "region" is a word of the pages' own scripts too
CONFIGURED = {"data_snapshot.json", "configuration.json"}  # names of columns, no values
AUDITED = {  # results by group, no rows
    "report.html",
    "evaluation.json",
    "model_card.md",
    "model_card.html",
}


def test_champion_loads_with_plain_mlflow(template: World) -> None:
    (documents,) = template.artifacts.glob("*-release")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PLAIN_MLFLOW,
            template.settings.mlflow_uri,
            str(documents / "input_example.json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=template.root,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.split("SCORES ")[1])
    assert len(scores) == 5
    assert all(0 < score < 1 for score in scores)


def test_champion_takes_what_the_feature_store_hands_out(template: World) -> None:
    source = template.data / "sources" / "churn" / "accounts.parquet"
    done = subprocess.run(
        [sys.executable, "-c", STORE_TO_CHAMPION, str(source)],
        capture_output=True,
        text=True,
        check=False,
        cwd=template.root,
        env={**os.environ, **template.environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.returncode == 0, done.stderr
    scores, *others = json.loads(done.stdout.split("SCORES ")[1])
    assert others == [scores, scores]
    assert len(scores) == 50
    assert all(0 < score < 1 for score in scores)


def test_mlflow_artifacts_hold_no_personal_column_and_only_hashed_keys(template: World) -> None:
    files = [path for path in (template.data / "mlflow" / "artifacts").rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"validation_predictions.csv", "representative_errors.csv"} <= names
    assert {path.suffix for path in files} <= {*TEXTS, ".png", ""}
    for path in files:
        if path.suffix not in TEXTS or path.name in CONFIGURED:
            continue
        text = path.read_text()
        assert "customer_id" not in text, path
        if path.name not in AUDITED:
            words = r"\b(gender|age_band)\b" if path.suffix == ".html" else PERSONAL
            assert not re.search(words, text), path
        if path.suffix == ".csv":
            keys = [line.split(",")[0] for line in text.splitlines()]
            assert keys[0] == "entity_hash"
            assert all(re.fullmatch(r"[0-9a-f]{16}", key) for key in keys[1:])
