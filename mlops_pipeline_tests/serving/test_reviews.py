"""Reviews over HTTP, and at the command line."""

import json
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from mlops_pipeline.cli.app import app
from mlops_pipeline.config import UseCase
from mlops_pipeline.serving.http import create_app
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.serving.client import problem_of
from mlops_pipeline_tests.serving.served_shop import release
from mlops_pipeline_tests.serving.shops import SHOP_DOCUMENT, settings_at
from mlops_pipeline_tests.worlds import NOW

BODY = {"verdict": "confirmed", "by": "Ann", "reason": "as it is"}


def test_flagged_answer_is_listed_and_decided(
    changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_at(changed)
    release(settings)
    document = {**SHOP_DOCUMENT, "serving": {"high_impact": "spent > 0"}}
    case = UseCase.model_validate(document)
    with TestClient(create_app({"shop": case}, settings)) as client:
        one = client.post("/v1/predict", json={"entity_id": 1}).json()
        client.post("/v1/predict", json={"entity_id": 2})
        assert one["needs_review"] is True
        found = {
            item["prediction_id"]: item for item in client.get("/v1/reviews").json()["reviews"]
        }
        first = found.pop(one["prediction_id"])
        (second,) = found.values()
        assert {name: first[name] for name in one} == one
        assert first["features"]["spent"] == 12.5
        path = f"/v1/reviews/{one['prediction_id']}"
        said = client.post(path, json=BODY)
        assert (said.status_code, said.json()["decision"]) == (200, one["decision"])
        refused = client.post(path, json={**BODY, "by": "Ben"})
        assert problem_of(refused) == (409, "reviewed")
        assert problem_of(client.post(path, json={**BODY, "by": " "})) == (422, "unusable-request")
        assert problem_of(client.post("/v1/reviews/0", json=BODY)) == (404, "not-found")
        receipt = client.get(f"/v1/predictions/{one['prediction_id']}").json()
        assert receipt["review"]["by"] == "Ann"
        metrics = client.get("/metrics").text
    assert 'reason="high impact"' not in metrics  # it is no reason of a default

    (changed / "configs" / "shop.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(document))))
    monkeypatch.chdir(changed)
    monkeypatch.setenv("MLOPS_DATA_DIR", str(changed / "data"))
    monkeypatch.setenv("MLOPS_NOW", NOW.isoformat())
    listed = CliRunner().invoke(app, ["review", "list", "shop", "--json"])
    (left,) = json.loads(listed.stdout)
    assert left["prediction_id"] == second["prediction_id"]
    words = ["review", "decide", "shop", left["prediction_id"], "overturned"]
    decided = CliRunner().invoke(app, [*words, "--by", "Cat", "--reason", "no"])
    assert decided.exit_code == 0, decided.exception
    nothing = CliRunner().invoke(app, ["review", "list", "shop"])
    assert nothing.stdout == "nothing waits for a person\n"
    sampled = CliRunner().invoke(app, ["review", "sample", "shop"]).stdout
    assert sampled.splitlines()[1].count(",random,") == 1
    with OpsDatabase.open(settings.database_url) as ops:
        assert [event.actor for event in ops.audit_events(kind="review")] == ["Cat", "Ann"]
