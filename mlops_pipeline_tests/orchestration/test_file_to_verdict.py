"""From a file, in any layout that a source may have, to the gate's verdict, in one process."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

import dagster as dg
import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
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
from mlops_pipeline_tests.worlds import VISITS, materialize_in_process, shop

CHAIN = ("raw_data", "validated_data", "features", "trained_model", "evaluation_report")
REAL = Path(__file__).parents[2].parent / "shared" / "data"
TELCO = "telco_churn.csv.gz"
AS_OF = "2025-09-01"
COLUMNS = VISITS["columns"]

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore"),  # what libraries say to a process that has all of them
]
needs_telco = pytest.mark.skipif(
    not (REAL / TELCO).is_file(), reason=f"no real data sets in {REAL}"
)


def verdict(use_case: UseCase, data: Path, as_of: str = AS_OF) -> dict[str, Any]:
    """Run the chain up to the gate; return what the evaluation's pointer says."""
    environment = {"MLOPS_DATA_DIR": str(data), "MLOPS_THREADS": "1", "MPLBACKEND": "agg"}
    name = use_case.name
    done = materialize_in_process(
        [*data_assets(use_case), *feature_assets(use_case), *model_assets(use_case)],
        selection=[dg.AssetKey([name, asset]) for asset in CHAIN],
        resources={
            "platform": Platform(environment=environment),
            f"mlflow_{name}": mlflow_resource(name),
        },
        run_config={"ops": {f"{name}__features": {"config": {"as_of": as_of}}}},
    )
    assert done.success
    with OpsDatabase.open(Settings.from_environment(environment).database_url) as ops:
        pointer = get_pointer(ops, name, "evaluation")
    assert pointer is not None
    return dict(pointer.value)


def documented() -> dict[str, Any]:
    (text,) = [item for item in blocks(text_of("docs/configuration.md"), "yaml") if "once" in item]
    return dict(yaml.safe_load(text))


@needs_telco
def test_documented_table_without_time_gets_a_verdict(tmp_path: Path) -> None:
    fetch_dataset("telco_churn", tmp_path, from_folder=REAL)
    assert verdict(UseCase.model_validate(documented()), tmp_path)["passed"] is True


@needs_telco
def test_csv_as_its_publisher_wrote_it_gets_a_verdict(tmp_path: Path) -> None:
    """Names with capitals, a zipped file, blanks for missing numbers; once, without time."""
    copyfile(REAL / TELCO, tmp_path / TELCO)
    texts = "gender Partner Dependents PhoneService MultipleLines InternetService OnlineSecurity"
    texts += " OnlineBackup DeviceProtection TechSupport StreamingTV StreamingMovies Contract"
    columns = dict.fromkeys(
        f"customerID {texts} PaperlessBilling PaymentMethod Churn".split(), "string"
    )
    numbers = {"SeniorCitizen": "int64", "tenure": "int64"}
    numbers |= {"MonthlyCharges": "float64", "TotalCharges": "float64"}
    last = {"aggregate": "last", "dtype": "string"}
    document = {
        **documented(),
        "entity": {"name": "customer", "key": "customerID"},
        "sources": {
            "customers": {"uri": TELCO, "key": ["customerID"], "columns": columns | numbers}
        },
        "label": {**documented()["label"], "column": "Churn"},
        "views": {
            "customer": {
                "source": "customers",
                "columns": {
                    "tenure": {"aggregate": "last", "of": "tenure", "dtype": "int64"},
                    "total": {"aggregate": "last", "of": "TotalCharges", "precision": 2},
                    "contract": {**last, "of": "Contract"},
                    "internet": {**last, "of": "InternetService"},
                },
            }
        },
    }
    assert verdict(UseCase.model_validate(document), tmp_path)["passed"] is True


def visits() -> pa.Table:
    """Half a year of visits of 200 customers; who comes more often is likelier to come again."""
    random = np.random.default_rng(7)
    customers = np.repeat(np.arange(200), 1 + np.arange(200) // 20)
    days = random.integers(0, 210, len(customers))
    at = (np.datetime64("2025-01-10T09:00:00", "us") + days.astype("m8[D]")).astype("M8[us]")
    order = np.argsort(at, kind="stable")
    rows = {
        "customer": customers[order],
        "at": at[order],
        "known": at[order],
        "amount": random.integers(1, 90, len(customers)).astype(float),
        "units": np.ones(len(customers), dtype=np.int64),
        "kind": np.where(random.random(len(customers)) < 0.5, "shop", "web"),
    }
    return pa.table(rows)


def flat(folder: Path) -> None:
    folder.mkdir()
    pq.write_table(visits(), folder / "a.parquet")


def nanoseconds(folder: Path) -> None:
    """As pandas writes times in UTC."""
    folder.mkdir()
    frame = visits().to_pandas()
    for name in ("at", "known"):
        frame[name] = frame[name].dt.tz_localize("UTC").astype("datetime64[ns, UTC]")
    frame.to_parquet(folder / "a.parquet")
    assert pq.read_schema(folder / "a.parquet").field("at").type == pa.timestamp("ns", "UTC")


def delta(folder: Path) -> None:
    rows = visits()
    deltalake.write_deltalake(folder, rows[:300])
    deltalake.write_deltalake(folder, rows[300:], mode="append")


def dated(folder: Path) -> None:
    """One folder a day, and the day as a column."""
    rows = visits()
    day = pa.compute.strftime(rows["at"], "%Y-%m-%d")
    pa.dataset.write_dataset(
        rows.append_column("day", day),
        folder,
        format="parquet",
        partitioning=["day"],
        partitioning_flavor="hive",
        max_partitions=300,
    )


def store(**source: Any) -> UseCase:
    return shop(sources={"visits": {**VISITS, "max_quarantined": 0.05, **source}})


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = tmp_path_factory.mktemp("flat")
    flat(data / "visits")
    return figures(store(), data)


def figures(use_case: UseCase, data: Path, as_of: str = AS_OF) -> dict[str, Any]:
    """Return the gate, and the figures that it judged."""
    name = verdict(use_case, data, as_of)["fingerprint"]
    document = json.loads((data / f"lake/shop/artifacts/{name}/evaluation.json").read_text())
    return {part: document[part] for part in ("gate", "evaluation")}


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        (nanoseconds, {}),
        (delta, {"format": "delta"}),
        (dated, {"columns": {**COLUMNS, "day": "date"}}),
    ],
)
def test_other_layout_of_the_same_rows_gets_the_same_verdict(
    tmp_path: Path,
    expected: dict[str, Any],
    layout: Callable[[Path], None],
    source: Mapping[str, Any],
) -> None:
    layout(tmp_path / "visits")
    assert figures(store(**source), tmp_path) == expected


def test_source_that_gains_widens_and_loses_columns_gets_the_same_verdict(
    tmp_path: Path, expected: dict[str, Any]
) -> None:
    rows = visits()
    folder = tmp_path / "visits"
    folder.mkdir()

    def deliver(before: str, table: pa.Table) -> None:
        known = pa.compute.less(table["known"], pa.scalar(np.datetime64(before, "us")))
        pq.write_table(table.filter(known), folder / "a.parquet")

    def without(*names: str) -> dict[str, str]:
        return {name: kind for name, kind in COLUMNS.items() if name not in names}

    first = {**without("units"), "amount": "int64"}
    narrow = rows.drop_columns(["units"])
    place = narrow.schema.get_field_index("amount")
    deliver("2025-07-01", narrow.set_column(place, "amount", rows["amount"].cast(pa.int64())))
    figures(store(columns=first), tmp_path, "2025-07-01")
    deliver("2025-08-01", rows)
    figures(store(), tmp_path, "2025-08-01")
    deliver("2026-01-01", rows.drop_columns(["kind"]))
    assert figures(store(columns=without("kind")), tmp_path) == expected
