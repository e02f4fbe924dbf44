"""Building a registered version again: same bytes, or the input that is missing."""

import json
from typing import Any

import pytest

from mlops_pipeline_tests.world import LATER, World


def reproduce(world: World, version: int, *words: str) -> tuple[int, str]:
    done = world.command("mlops", "reproduce", "churn", str(version), *words)
    return done.wait(), done.text()


def document_of(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return document


def inputs_of(document: dict[str, Any]) -> dict[str, bool]:
    return {item["name"]: item["is_same"] for item in document["inputs"]}


@pytest.mark.campaign
def test_champion_of_an_earlier_run_is_rebuilt_byte_for_byte(world: World) -> None:
    world.lifecycle(LATER)  # newer features and another version lie beside it by now
    world.configure(lambda document: document["training"].update(seed=8))
    code, text = reproduce(world, 1, "--json")
    document = document_of(text)
    assert (code, document["is_identical"]) == (0, True), text
    assert set(document["files"]) == {"model.json", "model.txt"}
    assert all(inputs_of(document).values()), text
    assert list(world.data.glob(".reproduce-*")) == []
    with world.ops() as ops:
        (event,) = ops.audit_events(kind="reproduced")
    assert event.detail == {"version": 1, "identical": True, "differ": []}


def test_altered_model_is_not_identical_and_says_what_differs(world: World) -> None:
    (path,) = world.artifacts.glob("*-release/model/model.json")
    altered = json.loads(path.read_text())
    altered["threshold"] = 0.3
    path.write_text(json.dumps(altered))
    code, text = reproduce(world, 1)
    assert code == 1
    assert "model.json" in text
    assert "not identical" in text
    assert "model.txt" in text


def test_recorded_data_that_are_gone_are_named(world: World) -> None:
    table = world.data / "lake" / "churn" / "raw" / "tickets"
    next(table.glob("*.parquet")).unlink()
    code, text = reproduce(world, 1)
    assert code == 1
    assert "the recorded data of source tickets are gone" in text
    assert "version 0" in text
    with world.ops() as ops:
        (event,) = ops.audit_events(kind="reproduced")
    assert event.detail["identical"] is False
