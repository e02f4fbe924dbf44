"""Nothing that tells of one person is outside the lake: not in MLflow, logs, reports, databases."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.predictions import PredictionLog
from mlops_pipeline.stores.settings import pseudonymiser
from mlops_pipeline_tests.world import FIRST_ID, NAME, World

PEOPLE = re.compile(rf"{NAME}|(?<![\d.]){str(FIRST_ID)[:9]}\d{{6}}\b")
ROW_LEVEL = ("raw", "quarantine", "features", "predictions")  # tables of the lake, which may
STORES = ("online.db", "predictions.db")  # and databases of people's rows


def outside_the_lake(world: World) -> Iterator[tuple[Path, str]]:
    """Every file as text that is no delivered file and of no store that holds people's rows."""
    tables = [world.data / "lake" / "churn" / layer for layer in ROW_LEVEL]
    for path in world.root.rglob("*"):
        is_data = any(path.is_relative_to(item) for item in [*tables, world.data / "sources"])
        if path.is_file() and not is_data and not path.name.startswith(STORES):
            text = path.read_bytes().decode("utf-8", errors="replace")
            if path.suffix == ".parquet":
                text = str(pq.read_table(path).to_pylist())
            yield path, text


def named(world: World) -> dict[str, str]:
    """The files that name a person, and what of it."""
    return {
        str(path.relative_to(world.root)): found[0]
        for path, text in outside_the_lake(world)
        if (found := PEOPLE.search(text))
    }


def test_whole_lifecycle_names_nobody_outside_the_lake(template: World) -> None:
    files = {path.name for path, _ in outside_the_lake(template)}
    assert {
        *("mlflow.db", "ops.db", "train_sample.parquet", "input_example.json", "report.html"),
        *("validation_predictions.csv", "representative_errors.csv", "evidently.html"),
        *("evaluation.json", "run-0.log", "index.db"),
    } <= files
    assert named(template) == {}


def test_every_page_of_a_lifecycle_has_its_policy(template: World) -> None:
    pages = [path for path in template.root.rglob("*.html") if path.is_file()]
    assert {"report.html", "evidently.html", "model_card.html"} <= {path.name for path in pages}
    assert [path for path in pages if "Content-Security-Policy" not in path.read_text()[:600]] == []


def test_sample_and_example_hold_no_row_of_anybody(template: World) -> None:
    (sample,) = template.artifacts.glob("*/train_sample.parquet")
    table = pq.read_table(sample)
    assert "gender" not in table.column_names
    for name in table.column_names:
        values = [value for value in table.column(name).to_pylist() if value is not None]
        assert values == sorted(values)
    (example,) = template.artifacts.glob("*-release/input_example.json")
    document = json.loads(example.read_text())
    assert len(document["data"]) == 5
    assert set(document["data"][-1]) == {None}


def test_runs_that_fail_and_pages_for_people_name_nobody(world: World) -> None:
    path = world.data / "sources" / "churn" / "accounts.parquet"
    people = pq.read_table(path)
    text = path.with_suffix(".csv")
    pa_csv.write_csv(people, text)
    path.unlink()
    world.configure(_accounts_as_csv)
    world.run(assets=["raw_data", "validated_data", "data_docs"])  # a third is quarantined
    lines = text.read_text().splitlines()
    for broken in (
        lines[1].replace(str(FIRST_ID)[:9], NAME, 1),  # a name where a number belongs
        f"{NAME},{NAME}",  # fields that are missing
    ):
        text.write_text("\n".join([*lines, broken]) + "\n")
        assert world.start(assets=["raw_data"]).wait() != 0
    with world.ops() as ops:
        assert len(list_alerts(ops, "churn", open_only=True)) == 2
    assert named(world) == {}
    shown = [  # of a protected column, in examples of quarantined rows and on pages of their rules
        str(path)
        for path, said in outside_the_lake(world)
        if path.is_relative_to(world.root / "home") or "data_docs" in path.parts
        if re.search(r"\bmale\b", said)
    ]
    assert shown == []


def _accounts_as_csv(document: dict) -> None:  # type: ignore[type-arg] # plain YAML
    accounts = document["sources"]["accounts"]
    accounts["uri"] = accounts["uri"].replace(".parquet", ".csv")
    accounts["format"] = "csv"
    accounts["max_quarantined"] = 1.0
    rule = {"rule": "in_set", "column": "gender", "values": ["female"]}
    accounts["rules"] = [*accounts["rules"], rule]


def test_forget_takes_the_person_out_of_mlflow_and_predictions(world: World) -> None:
    world.run(job="churn_batch_score", ops={"batch_predictions": {"period": "2024-02-01"}})
    (csv, *_) = world.data.glob("mlflow/artifacts/**/validation_predictions.csv")
    pseudonym = csv.read_text().splitlines()[1].split(",")[0]
    person = next(
        key
        for key in range(FIRST_ID, FIRST_ID + 3_000)
        if pseudonymiser(world.settings)(key) == pseudonym
    )
    assert _rows(world, pseudonym) > 0
    with PredictionLog(world.settings.predictions_url) as log:
        logged = log.count("churn", str(person))
    assert logged > 0  # the batch is in the log

    done = world.command("mlops", *_words(person))

    assert done.wait() == 0, done.text()
    assert done.has_said("model versions 1 were made from data that held the person")
    assert _rows(world, pseudonym) == 0
    assert csv.read_text().startswith("entity_hash,as_of,label,probability\n")
    assert not [path for path in _tables(world) if str(person) in str(pq.read_table(path))]
    lake = Lake(world.settings.lake_uri)
    assert lake.commit_metadata(lake.table_uri("churn", "predictions"))[-1]["model_version"] == 1
    assert not done.has_said(str(person))
    with PredictionLog(world.settings.predictions_url) as log:
        assert log.count("churn", str(person)) == 0
    shutil.rmtree(world.data / "sources")
    assert named(world) == {}


def _words(person: int) -> list[str]:
    return ["forget", "customer", str(person), "--by", "Ann", "--reason", "asked", "--yes"]


def _rows(world: World, pseudonym: str) -> int:
    files = world.data.glob("mlflow/artifacts/**/*.csv")
    return sum(path.read_text().count(pseudonym) for path in files)


def _tables(world: World) -> list[Path]:
    folder = world.data / "lake" / "churn"
    return [path for layer in ROW_LEVEL for path in (folder / layer).rglob("*.parquet")]
