"""A table without time: the example of the documentation, from file to verdict in one process."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from mlops_pipeline.config import UseCase
from mlops_pipeline.demo.datasets import fetch_dataset
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.orchestration.assets.data import data_assets, feature_assets
from mlops_pipeline.orchestration.assets.model import model_assets
from mlops_pipeline.orchestration.resources import Platform, mlflow_resource
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.documentation import blocks, text_of
from mlops_pipeline_tests.worlds import materialize_in_process

CHAIN = ("raw_data", "validated_data", "features", "trained_model", "evaluation_report")
REAL = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.skipif(
    not (REAL / "telco_churn.csv.gz").is_file(), reason=f"no real data sets in {REAL}"
)
@pytest.mark.filterwarnings("ignore")  # what libraries say to a process that has all of them
def test_documented_table_without_time_gets_a_verdict(tmp_path: Path) -> None:
    (text,) = [item for item in blocks(text_of("docs/configuration.md"), "yaml") if "once" in item]
    use_case = UseCase.model_validate(yaml.safe_load(text))
    environment = {"MLOPS_DATA_DIR": str(tmp_path), "MLOPS_THREADS": "1", "MPLBACKEND": "agg"}
    fetch_dataset("telco_churn", tmp_path, from_folder=REAL)
    done = materialize_in_process(
        [*data_assets(use_case), *feature_assets(use_case), *model_assets(use_case)],
        selection=[dg.AssetKey(["telco", name]) for name in CHAIN],
        resources={
            "platform": Platform(environment=environment),
            "mlflow_telco": mlflow_resource("telco"),
        },
    )
    assert done.success
    with OpsDatabase.open(Settings.from_environment(environment).database_url) as ops:
        verdict = get_pointer(ops, "telco", "evaluation")
    assert verdict is not None
    assert verdict.value["passed"] is True
