"""The Open Inference Protocol: a client of others lists, describes and infers on a real server."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mlops_pipeline.core.modelling.row_scorer import RowScorer
from mlops_pipeline_tests.serving.client import client_at, problem_of
from mlops_pipeline_tests.serving.served_shop import release, shop_model
from mlops_pipeline_tests.serving.shops import settings_at
from mlops_pipeline_tests.serving.test_server import running

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gevent's and its friends'
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

ROWS: list[dict[str, Any]] = [
    {"visits": 2, "spent": 12.5, "last_kind": "web", "spent_a_visit": 6.25},
    {"visits": 5, "spent": None, "last_kind": "till", "spent_a_visit": 1.0},
]
KINDS = {"visits": "INT64", "spent": "FP64", "last_kind": "BYTES", "spent_a_visit": "FP64"}


@pytest.fixture
def client(changed: Path) -> Iterator[TestClient]:
    release(settings_at(changed))
    with client_at(changed) as opened:
        yield opened


def tensors(rows: list[dict[str, Any]] = ROWS) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [len(rows)], "datatype": kind, "data": [row[name] for row in rows]}
        for name, kind in KINDS.items()
    ]


def infer(client: TestClient, path: str = "/v2/models/shop/infer", **body: Any) -> Any:
    return client.post(path, json={"inputs": tensors(), **body})


@pytest.mark.parametrize("binary", [True, False])
def test_client_of_others_lists_describes_and_infers(changed: Path, binary: bool) -> None:
    release(settings_at(changed))
    score = RowScorer(shop_model())
    with running(changed) as real:
        client = triton.InferenceServerClient(f"{real.base_url.host}:{real.base_url.port}")
        try:
            assert client.is_server_live()
            assert client.is_model_ready("shop")
            assert client.is_model_ready("shop", "1")
            assert not client.is_model_ready("shop", "2")
            assert client.is_server_ready()  # till without a champion changes nothing
            listed = {item["name"]: item["state"] for item in client.get_model_repository_index()}
            assert listed == {"shop": "READY", "till": "UNAVAILABLE"}
            assert client.get_server_metadata()["name"] == "mlops_pipeline"
            about = client.get_model_metadata("shop")
            assert about["versions"] == ["1"]
            described = {item["name"]: item["datatype"] for item in about["inputs"]}
            assert described == {"entity_id": "BYTES", **KINDS}
            inputs = []
            for name, kind in KINDS.items():
                dtype: Any = {"BYTES": object, "INT64": np.int64, "FP64": np.float64}[kind]
                values = [row[name] for row in ROWS]
                if not binary and kind == "FP64":
                    values = [1.5 if one is None else one for one in values]  # JSON has no NaN
                tensor = triton.InferInput(name, [2], kind)
                tensor.set_data_from_numpy(np.array(values, dtype=dtype), binary_data=binary)
                inputs.append(tensor)
            said = client.infer("shop", inputs, request_id="one")
            rows = ROWS if binary else [ROWS[0], {**ROWS[1], "spent": 1.5}]
            expected = [score(row) for row in rows]
            assert said.as_numpy("score").tolist() == [one.probability for one in expected]
            assert said.as_numpy("decision").tolist() == [one.decision for one in expected]
            assert said.get_response()["model_version"] == "1"
            with pytest.raises(InferenceServerException, match="there is no model 'shopp'"):
                client.infer("shopp", inputs)
        finally:
            client.close()


def test_rows_of_entities_are_looked_up(client: TestClient) -> None:
    ids = {"name": "entity_id", "shape": [2, 1], "datatype": "BYTES", "data": [["1"], ["99"]]}
    outputs = [{"name": name} for name in ("role", "score", "prediction_id")]
    said = infer(client, inputs=[ids], outputs=outputs, id="a").json()
    data = {item["name"]: item["data"] for item in said["outputs"]}
    plain = client.post("/v1/predict", json={"use_case": "shop", "entity_id": 1}).json()
    assert data["role"] == ["champion", "default"]
    assert data["score"] == [plain["probability"], None]
    receipt = client.get(f"/v1/predictions/{data['prediction_id'][0]}?use_case=shop").json()
    assert (receipt["entity_id"], receipt["request_id"]) == ("1", "a")


def test_row_without_an_entity_is_nobodys(client: TestClient) -> None:
    said = infer(client, outputs=[{"name": "prediction_id"}]).json()
    (item,) = said["outputs"]
    receipt = client.get(f"/v1/predictions/{item['data'][0]}?use_case=shop").json()
    assert (receipt["entity_id"], receipt["features"]) == ("", ROWS[0])


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": [{"name": "visits", "shape": [3], "datatype": "INT64", "data": [1]}]},
        {"inputs": [{"name": "visits", "shape": [1], "datatype": "INT65", "data": [1]}]},
        {"inputs": [{"name": "visits", "shape": [-1], "datatype": "INT64", "data": [1]}]},
        {"inputs": [{"name": "visits", "shape": [1], "datatype": "INT64", "data": [1]}]},
        {"inputs": [*tensors(), tensors()[0]]},
        {"inputs": [*tensors(), tensors(ROWS[:1])[0] | {"name": "other"}]},
        {"outputs": [{"name": "colour"}]},
        {"inputs": [{"name": "entity_id", "shape": [1], "datatype": "BYTES", "data": [None]}]},
    ],
)
def test_unusable_tensors_are_a_problem_that_says_error(
    client: TestClient, body: dict[str, Any]
) -> None:
    said = infer(client, **body)
    assert problem_of(said) == (422, "unusable-request")
    assert said.json()["error"]


def test_bytes_behind_the_json_have_to_be_of_their_datatype(client: TestClient) -> None:
    for kind, piece in (("INT64", b"1234567"), ("BYTES", b"\xff\x00\x00\x00a"), ("FP64", b"")):
        tensor = {"name": "visits", "shape": [1], "datatype": kind}
        sized = {**tensor, "parameters": {"binary_data_size": len(piece)}}
        text = json.dumps({"inputs": [sized]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        said = client.post("/v2/models/shop/infer", content=text + piece, headers=headers)
        assert problem_of(said) == (422, "unusable-request"), kind


def test_other_version_and_model_without_one_are_not_found(client: TestClient) -> None:
    for path in ("shop/versions/2", "till", "nothing"):
        for end in ("", "/ready"):
            assert problem_of(client.get(f"/v2/models/{path}{end}")) == (404, "not-found")
        assert problem_of(infer(client, f"/v2/models/{path}/infer")) == (404, "not-found")


def test_server_without_a_model_is_not_ready(shops: Path) -> None:
    with client_at(shops) as client:
        assert problem_of(client.get("/v2/health/ready")) == (503, "not-ready")
        assert client.get("/v2/health/live").status_code == 200
