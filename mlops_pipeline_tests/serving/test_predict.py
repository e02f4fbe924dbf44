"""Predictions over HTTP: what a body may be, what an answer is, and what stays of it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline_tests.serving.client import client_at, problem_of
from mlops_pipeline_tests.serving.served_shop import release
from mlops_pipeline_tests.serving.shops import settings_at
from mlops_pipeline_tests.serving.test_server import running

HEAVY = ("mlflow", "sklearn", "pandas", "lightgbm", "dagster")
ROW = {"visits": 2, "spent": 12.5, "last_kind": "web", "spent_a_visit": 6.25}
SERVE = """
import json, sys
from pathlib import Path
from fastapi.testclient import TestClient
from mlops_pipeline.config import load_use_cases
from mlops_pipeline.serving.http import create_app
from mlops_pipeline.stores.settings import Settings
root = Path(sys.argv[1])
given = {"MLOPS_DATA_DIR": str(root / "data"), "MLOPS_NOW": sys.argv[2]}
settings = Settings.from_environment(given)
with TestClient(create_app(load_use_cases(root / "configs"), settings)) as client:
    answer = client.post("/v1/predict", json={"use_case": "shop", "entity_id": 1}).json()
print(json.dumps([answer["role"], sorted(set(sys.argv[3:]) & set(sys.modules))]))
"""


@pytest.fixture(params=["app", "server"])  # the server's protocol answers by itself
def client(request: pytest.FixtureRequest, changed: Path) -> Iterator[httpx.Client]:
    release(settings_at(changed))
    with client_at(changed) if request.param == "app" else running(changed) as opened:
        yield opened


def post(client: httpx.Client, **body: Any) -> Any:
    return client.post("/v1/predict", json={"use_case": "shop", **body})


def test_one_entity_gets_an_answer_and_its_receipt(client: httpx.Client) -> None:
    said = post(client, entity_id=1)
    assert said.status_code == 200
    assert said.headers["cache-control"] == "no-store"
    body = said.json()
    assert (body["role"], body["model_version"], body["entity_id"]) == ("champion", 1, "1")
    receipt = client.get(f"/v1/predictions/{body['prediction_id']}?use_case=shop").json()
    assert {name: receipt[name] for name in body} == body
    assert receipt["features"] == ROW
    assert receipt["model"]["provenance"]["git_commit"] == "c0ffee"


def test_list_is_answered_one_by_one(client: httpx.Client) -> None:
    entities = [{"entity_id": 2}, {"entity_id": "99"}, {"entity_id": 9, "features": ROW}]
    found = post(client, entities=entities).json()["predictions"]
    assert [(one["entity_id"], one["role"]) for one in found] == [
        ("2", "champion"), ("99", "default"), ("9", "champion")]  # fmt: skip


def test_version_in_trial_answers_its_entities_and_scores_beside_the_others(
    client: httpx.Client, changed: Path
) -> None:
    policy = RolloutPolicy.model_validate({"stages": ["shadow", "full"], "test_entities": ["2"]})
    release(settings_at(changed), 2, policy=policy)
    waiting = threading.Event()
    for _ in range(200):  # the service looks every half second
        canary = post(client, entity_id=2).json()
        if canary["role"] == "canary":
            break
        waiting.wait(0.1)
    other = post(client, entity_id=1).json()
    assert (canary["role"], canary["model_version"]) == ("canary", 2)
    assert (other["role"], other["model_version"]) == ("champion", 1)
    for one, version in ((canary, 1), (other, 2)):
        for _ in range(200):
            url = f"/v1/predictions/{one['prediction_id']}"
            receipt = client.get(url, params={"use_case": "shop"}).json()
            if receipt["shadow"] is not None:
                break
            waiting.wait(0.1)
        assert receipt["shadow"]["version"] == version


def test_request_id_is_answered_once_and_refused_for_another_body(client: httpx.Client) -> None:
    first = post(client, entity_id=1, request_id="a").json()
    assert post(client, entity_id=1, request_id="a").json() == first
    assert problem_of(post(client, entity_id=2, request_id="a")) == (409, "request-conflict")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"entity_id": 1, "entities": [{"entity_id": 1}]},
        {"entities": []},
        {"entity_id": 1, "colour": "red"},
        {"entity_id": {"id": 1}},
        {"entity_id": "x" * 101},
        {"entity_id": "no number"},
        {"entity_id": 1, "features": {"visits": 2}},
        {"entity_id": 1, "features": {**ROW, "spent": "much"}},
        {"entity_id": 1, "request_id": "y" * 101},
    ],
)
def test_body_that_cannot_be_used_is_a_problem_and_not_logged(
    client: httpx.Client, body: dict[str, Any]
) -> None:
    assert problem_of(post(client, **body)) == (422, "unusable-request")


@pytest.mark.parametrize("text", ["", "{", '{"use_case": "shop", "entity_id": NaN}', "[1]"])
def test_body_that_is_no_json_object_is_a_problem(client: httpx.Client, text: str) -> None:
    headers = {"content-type": "application/json"}
    said = client.post("/v1/predict", content=text, headers=headers)
    assert problem_of(said) == (422, "unusable-request")


def test_problem_of_a_body_does_not_repeat_its_values(client: httpx.Client) -> None:
    said = post(client, entity_id={"name": "Grace Hopper"})
    assert "Hopper" not in said.text


def test_use_case_is_needed_and_has_to_be_served(client: httpx.Client) -> None:
    assert problem_of(client.post("/v1/predict", json={"entity_id": 1})) == (
        422, "unusable-request")  # fmt: skip
    said = client.post("/v1/predict", json={"use_case": "shpo", "entity_id": 1})
    assert problem_of(said) == (404, "not-found")
    assert "shop" in said.json()["expected"]


def test_prediction_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    said = client.get("/v1/predictions/0123?use_case=shop")
    assert problem_of(said) == (404, "not-found")
    assert "0123" not in said.text


def test_request_time_columns_reach_the_features(client: httpx.Client) -> None:
    said = client.post("/v1/predict", json={"use_case": "till", "entity_id": 1, "request": {}})
    assert said.json()["reasons"] == ["till has no champion"]


def test_log_that_is_away_refuses_the_answer(changed: Path) -> None:
    release(settings_at(changed))
    with client_at(changed) as client:
        assert post(client, entity_id=1).status_code == 200
        database = changed / "data" / "predictions.db"
        for path in database.parent.glob("predictions.db*"):
            path.unlink()
        database.mkdir()
        said = post(client, entity_id=1)
        ready: Any = client.app
        ready.state.services["shop"].look_at_log()
        assert problem_of(client.get("/v2/health/ready")) == (503, "log-unavailable")
    assert problem_of(said) == (503, "log-unavailable")
    assert said.headers["retry-after"] == "1"


def test_serving_process_has_no_heavy_library(changed: Path) -> None:
    settings = settings_at(changed)
    release(settings)
    words = [str(changed), settings.now().isoformat(), *HEAVY]
    done = subprocess.run(
        [sys.executable, "-c", SERVE, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["champion", []]
