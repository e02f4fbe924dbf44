"""The least that answers: a raw ASGI callable, the JSON library of the service, one prediction.

uvicorn benchmarks.serving.bare:app     MODEL is LightGBM's text
"""

import os
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np

booster = lightgbm.Booster(model_str=Path(os.environ["MODEL"]).read_text(encoding="utf-8"))
decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
HEADERS = [(b"content-type", b"application/json")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request: the rows of its body, scored."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    rows = np.array(decode(body)["rows"], dtype=np.float32) if body else np.zeros((1, 45))
    scores = booster.predict(rows, num_threads=1)
    said = encode({"scores": scores.tolist()})
    length = (b"content-length", str(len(said)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
    await send({"type": "http.response.body", "body": said})
