"""A gate that refuses on fairness only, through the chain: the mitigated variant is registered.

In this world everyone with many support tickets lives in the south. Decisions may know the region,
so that the contract test covers thresholds by group and the review band in plain MLflow.
"""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.errors import ModelFilesError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.context import open_context
from mlops_pipeline.lifecycle.predictions import score_period
from mlops_pipeline.lifecycle.rollouts import find_champion
from mlops_pipeline.stores.models.files import read_pinned
from mlops_pipeline_tests.world import FIRST, World, write_world

CHAIN = (  # without the documents of the data, which take their time
    *("raw_data", "validated_data", "features", "trained_model"),
    *("evaluation_report", "registry_entry", "deployment"),
)
MANY_TICKETS = 4  # in all; 13 % of the rows


@pytest.fixture(scope="module")
def mitigated(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = write_world(tmp_path_factory.mktemp("mitigation") / "world")
    _callers_live_in_the_south(world)
    world.configure(_blocking)
    world.run(assets=CHAIN, ops={"features": {"as_of": FIRST}})
    return world


def test_mitigated_variant_is_champion(mitigated: World) -> None:
    document = _evaluation(mitigated)
    outcome = document["evaluation"]["mitigation"]
    base, chosen = outcome["variants"][0], _chosen(outcome)
    assert document["gate"]["passed"]
    assert outcome["because"].startswith("demographic parity difference at most 0.12: region")
    assert base["test"]["disparity of region"] > 0.12 >= chosen["test"]["disparity of region"]
    assert chosen["method"] == "group_thresholds"
    with mitigated.ops() as ops:
        champion = find_champion(ops, "churn")
    assert champion is not None
    assert champion.version == 1
    stored = json.loads(mitigated.model_files(1)["model.json"])
    variant = json.loads((_folder(mitigated) / "mitigated" / "model.json").read_text())
    assert stored["thresholds"] == variant["thresholds"]
    assert stored["review_band"] == 0.02
    text = (_folder(mitigated) / "report.html").read_text()
    assert "The test part was used twice" in text
    card = (_folder(mitigated, "-release") / "model_card.md").read_text()
    assert "Where region is known, the group's own threshold applies instead" in card


def test_input_example_holds_nobodys_region_but_every_group(mitigated: World) -> None:
    example = json.loads((_folder(mitigated, "-release") / "input_example.json").read_text())
    at = example["columns"].index("region")
    groups = [row[at] for row in example["data"]]
    assert groups[:4] == ["east", "north", "south", "west"]


def test_evaluation_again_after_a_kill_half_way_ends_the_same(
    mitigated: World, tmp_path: Path
) -> None:
    world = mitigated.copy_to(tmp_path / "world")
    folder, before = _folder(world), _files(_folder(mitigated))
    (folder / "mitigated").rename(folder / ".mitigated.new")  # killed before it was in place
    with world.ops() as ops:
        pointer = get_pointer(ops, "churn", "evaluation")
    assert pointer is not None
    with pytest.raises(ModelFilesError, match="mitigated/model"):
        read_pinned(folder, pointer.value["files"], way_out="evaluate again")

    world.forget_registration()

    world.run(assets=["evaluation_report"], threads=3)

    assert _files(folder) == before
    assert not (folder / ".mitigated.new").exists()
    assert world.complete_versions() == [1]


def test_batch_scores_of_a_mitigated_champion_follow_its_groups(mitigated: World) -> None:
    files = {name: text.decode() for name, text in mitigated.model_files(1).items()}
    model = ScoringModel.of_files(files)
    with open_context(mitigated.use_case, mitigated.settings) as work:
        scored = score_period(
            *(work, model, 1, FIRST), train_missing={}, run_id="run", now=datetime.now(UTC)
        )
        state = work.lake.state(scored.uri)
        assert state is not None
        chosen = "customer_id, probability, decision, needs_review"
        query = f"SELECT {chosen} FROM {work.engine.scan(state)}"
        table = work.engine.sql.sql(query).to_arrow_table()
    rows = table.join(pq.read_table(_accounts(mitigated)), "customer_id")
    rule = model.document["thresholds"]
    limits = {
        group[0][0]: limit for group, limit in zip(rule["groups"], rule["limits"], strict=True)
    }
    expected = np.array([limits[region] for region in rows["region"].to_pylist()])
    probability = rows["probability"].to_numpy()
    assert (rows["decision"].to_numpy() == (probability >= expected)).all()
    near = np.abs(probability - expected) <= 0.01
    assert (rows["needs_review"].to_numpy() == near).all()
    assert len(set(limits.values())) > 1


def _callers_live_in_the_south(world: World) -> None:
    path = _accounts(world)
    accounts = pq.read_table(path)
    tickets = pq.read_table(path.with_name("tickets.parquet"))["customer_id"].to_pylist()
    count, others = Counter(tickets), ("north", "east", "west")
    region = pa.array(
        "south" if count[key] >= MANY_TICKETS else others[key % 3]
        for key in accounts["customer_id"].to_pylist()
    )
    at = accounts.column_names.index("region")
    pq.write_table(accounts.set_column(at, "region", region), path)


def _accounts(world: World) -> Path:
    return world.data / "sources" / "churn" / "accounts.parquet"


def _blocking(document: dict[str, Any]) -> None:
    document["gates"][2] = {
        "rule": "demographic_parity",
        "at_most": 0.12,
        "attributes": ["region"],
        "effect": "block",
    }
    document["fairness"] = {
        "attribute_at_decision": "allowed",
        "mitigation": {"methods": ["group_thresholds"], "max_loss": 1.0},
    }
    document["training"] |= {
        "costs": {"false_positive": 1.0, "false_negative": 12.0},
        "review_band": 0.02,
    }


def _folder(world: World, suffix: str = "") -> Path:
    with world.ops() as ops:
        pointer = get_pointer(ops, "churn", "trained_model")
    assert pointer is not None
    return world.artifacts / f"{pointer.value['fingerprint']}{suffix}"


def _evaluation(world: World) -> Any:
    return json.loads((_folder(world) / "evaluation.json").read_text())


def _chosen(outcome: Any) -> Any:
    (found,) = [item for item in outcome["variants"] if item["chosen"]]
    return found


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "mitigated").iterdir()}
