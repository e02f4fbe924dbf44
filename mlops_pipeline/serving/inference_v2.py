"""The Open Inference Protocol (v2, REST): models as tensors in, scores and decisions out.

GET  /v2, /v2/models/{name}[/versions/{version}]       what is served, and its tensors
GET  /v2/health/live, /v2/health/ready, .../ready      whether it answers
POST /v2/models/{name}[/versions/{version}]/infer      what the champion says of each row
POST /v2/repository/index                              the names of the models

A model is a use case, its version the champion's. Each feature is a tensor of one value a row;
`entity_id` is one more, which may be left out: then the answer is nobody's. Values may come as raw
bytes behind the JSON (the extension binary_tensor_data); answers are JSON.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import repeat
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from mlops_pipeline.errors import DataError, NotFoundError, PredictionLogError
from mlops_pipeline.lifecycle.entity_rows import EntityRow
from mlops_pipeline.lifecycle.live_models import LiveModel
from mlops_pipeline.lifecycle.serve import PredictionService
from mlops_pipeline.serving.key_uses import caller
from mlops_pipeline.serving.problems import (
    NEVER_STORE,
    NOT_READY,
    PROBLEMS,
    answer,
    problem_responses,
)
from mlops_pipeline.stores.predictions import LoggedPrediction

ENTITY = "entity_id"
DATATYPES = {"string": "BYTES", "float64": "FP64", "int64": "INT64", "boolean": "BOOL"}
NUMBERS = {  # little endian, as they come behind the JSON
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
OUTPUTS = {"score": "FP64", "decision": "BOOL", "role": "BYTES", "prediction_id": "BYTES"}
Datatype = Literal["BYTES", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32",
                   "INT64", "FP16", "FP32", "FP64"]  # fmt: skip
Scalar = float | int | bool | str | None

health, router = APIRouter(prefix="/v2"), APIRouter(prefix="/v2")


class _Part(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class InputTensor(_Part):
    """One value for each row: `data`, or raw bytes behind the JSON (`binary_data_size`)."""

    name: str
    shape: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=2)
    datatype: Datatype
    data: list[Scalar | list[Scalar]] | None = None


class RequestedOutput(_Part):
    """A tensor of the answer."""

    name: Literal["score", "decision", "role", "prediction_id"]


class InferBody(_Part):
    """The rows as tensors."""

    id: str | None = Field(None, description="As request_id of /v1/predict.")
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] | None = Field(None, description="Default: score, decision.")


def _schema() -> dict[str, Any]:
    """Return the schema of the body, whole: what is read by hand is not in the components."""
    found = InferBody.model_json_schema()
    found.pop("$defs")
    found["properties"]["inputs"]["items"] = InputTensor.model_json_schema()
    outputs = {"type": "array", "items": RequestedOutput.model_json_schema()}
    found["properties"]["outputs"]["anyOf"] = [outputs, {"type": "null"}]
    return found


INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {
            "schema": _schema(),
            "example": {"inputs": [{"name": ENTITY, "shape": [1], "datatype": "BYTES",
                                    "data": ["4711"]}]},
        }},
    }
}  # fmt: skip
TensorLength = Annotated[int | None, Header(alias="Inference-Header-Content-Length", ge=2)]


@health.get("/health/live")
async def live() -> Response:
    """Say that the process answers."""
    return JSONResponse({"live": True}, headers=NEVER_STORE)


@health.get("/health/ready", responses=problem_responses(503))
async def ready(request: Request) -> Response:
    """Say that a model answers; one that does not keeps the others from nothing."""
    live = [one for one in _services(request).values() if isinstance(one.live, LiveModel)]
    if live and all(one.log_is_away for one in live):
        return answer(PROBLEMS[PredictionLogError])
    if not live:
        return answer(NOT_READY)
    return JSONResponse({"ready": True}, headers=NEVER_STORE)


@router.get("")
async def server() -> Response:
    """Describe the server."""
    return JSONResponse(
        {
            "name": "mlops_pipeline",
            "version": version("mlops-pipeline"),
            "extensions": ["binary_tensor_data", "model_repository"],
        }
    )


@router.post("/repository/index")
async def index(request: Request) -> Response:
    """List the models, and why one is not ready."""
    found = []
    for name, service in _services(request).items():
        live = service.live
        if isinstance(live, LiveModel):
            about = {"version": str(live.version), "state": "READY", "reason": ""}
        else:
            about = {"version": "", "state": "UNAVAILABLE", "reason": live.reason}
        found.append({"name": name, **about})
    return JSONResponse(found)


@router.get("/models/{name}", responses=problem_responses(404))
@router.get("/models/{name}/versions/{version}", responses=problem_responses(404))
async def metadata(request: Request, name: str, version: str | None = None) -> Response:
    """Describe a model's tensors; a row is one place in each."""
    _, live = _live(request, name, version)
    kinds = {item: DATATYPES[live.use_case.feature_type(item)] for item in live.names}
    return JSONResponse(
        {
            "name": name,
            "versions": [str(live.version)],
            "platform": f"mlops_pipeline_{live.model.document['kind']}",
            "inputs": [_tensor(*item) for item in {ENTITY: "BYTES", **kinds}.items()],
            "outputs": [_tensor(*item) for item in OUTPUTS.items()],
        }
    )


@router.get("/models/{name}/ready", responses=problem_responses(404))
@router.get("/models/{name}/versions/{version}/ready", responses=problem_responses(404))
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """Say that this model, in this version, answers."""
    _live(request, name, version)
    return JSONResponse({"name": name, "ready": True}, headers=NEVER_STORE)


@router.post(
    "/models/{name}/infer", responses=problem_responses(404, 409, 422), openapi_extra=INFER
)
@router.post(
    "/models/{name}/versions/{version}/infer",
    responses=problem_responses(404, 409, 422),
    openapi_extra=INFER,
)
async def infer(
    request: Request, name: str, version: str | None = None, json_length: TensorLength = None
) -> Response:
    """Say what the champion says of each row.

    Rows with `entity_id` only are read from the online store.
    """
    service, live = _live(request, name, version)
    raw = await request.body()
    body, rows = _read(raw, json_length)
    entity_rows = _entity_rows(rows)
    made = await run_in_threadpool(
        partial(
            service.predict, entity_rows, caller=caller(request.scope), request_id=body.id or None
        )
    )
    request.app.state.metrics.decided(made)
    wanted = [item.name for item in body.outputs or ()] or ["score", "decision"]
    return JSONResponse(
        {
            "model_name": name,
            "model_version": str(made[0].model_version or live.version),
            "id": body.id or made[0].request_id,
            "outputs": [_output(item, made) for item in wanted],
        },
        headers=NEVER_STORE,
    )


def _tensor(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": [-1]}


def _output(name: str, made: Sequence[LoggedPrediction]) -> dict[str, Any]:
    fields = {"score": "probability", "prediction_id": "id"}
    data = [getattr(one, fields.get(name, name)) for one in made]
    return {"name": name, "datatype": OUTPUTS[name], "shape": [len(made)], "data": data}


def _services(request: Request) -> Mapping[str, PredictionService]:
    services: Mapping[str, PredictionService] = request.app.state.services
    return services


def _live(request: Request, name: str, wanted: str | None) -> tuple[PredictionService, LiveModel]:
    services = _services(request)
    if name not in services:
        raise NotFoundError.of("model", name, services, where="name")
    live = services[name].live
    if not isinstance(live, LiveModel):
        raise NotFoundError("the model has no version", where=name, found=live.reason)
    if wanted is not None and wanted != str(live.version):
        raise NotFoundError.of("version", wanted, [str(live.version)], where=name)
    return services[name], live


def _read(raw: bytes, json_length: int | None) -> tuple[InferBody, dict[str, list[Scalar]]]:
    """Return the body, and the values of each tensor."""
    text, behind = (raw, b"") if json_length is None else (raw[:json_length], raw[json_length:])
    try:
        body = InferBody.model_validate(json.loads(text))
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_input=False)
        ) from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise DataError("the body is no JSON", where="body", expected="JSON") from error
    found: dict[str, list[Scalar]] = {}
    for tensor in body.inputs:
        size = tensor.parameters.get("binary_data_size")
        if isinstance(size, int) and 0 <= size <= len(behind):
            piece, behind = behind[:size], behind[size:]
            values = _unpacked(tensor, piece)
        else:
            values = list(_flat(tensor.data or ()))
        if tensor.name in found or len(values) != int(np.prod(tensor.shape, dtype=object)):
            raise DataError(
                "a tensor comes twice, or has not the values of its shape",
                where=tensor.name,
                expected=f"shape {tensor.shape}, once",
                found=f"{len(values):,} values",
            )
        found[tensor.name] = values
    if len(set(map(len, found.values()))) != 1:
        sizes = {name: len(values) for name, values in found.items()}
        raise DataError("tensors have different numbers of rows", where="inputs", found=str(sizes))
    return body, found


def _unpacked(tensor: InputTensor, piece: bytes) -> list[Scalar]:
    """Return the values of raw bytes; a missing number is NaN there."""
    try:
        if tensor.datatype != "BYTES":
            values = np.frombuffer(piece, dtype=NUMBERS[tensor.datatype])
            return [None if one != one else one for one in values.tolist()]  # noqa: PLR0124 # NaN
        texts, place = list[Scalar](), 0
        while place < len(piece):
            (length,) = struct.unpack_from("<I", piece, place)
            place += 4 + length
            texts.append(piece[place - length : place].decode())
    except (ValueError, struct.error) as error:
        raise DataError(
            "the bytes of a tensor are not of its datatype",
            where=tensor.name,
            expected=tensor.datatype,
        ) from error
    return texts


def _flat(data: Sequence[Scalar | list[Scalar]]) -> Iterator[Scalar]:
    for item in data:
        if isinstance(item, list):
            yield from item
        else:
            yield item


def _entity_rows(tensors: dict[str, list[Scalar]]) -> list[EntityRow]:
    """Return each row as a question; rows that have an entity and nothing else are looked up."""
    features = {name: values for name, values in tensors.items() if name != ENTITY}
    count = len(next(iter(tensors.values())))
    entities: Any = tensors.get(ENTITY, repeat(None, count))
    rows: Any = repeat(None, count)
    if features:
        rows = [
            dict(zip(features, row, strict=True)) for row in zip(*features.values(), strict=True)
        ]
    return [
        EntityRow(entity if isinstance(entity, int | None) else str(entity), features=row)
        for entity, row in zip(entities, rows, strict=True)
    ]
