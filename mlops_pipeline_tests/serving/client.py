"""An in-process client of the app, and what a problem has to look like."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
from fastapi.testclient import TestClient

from mlops_pipeline.serving.http import create_app
from mlops_pipeline_tests.serving.shops import CASES, settings_at
from mlops_pipeline_tests.worlds import NOW

PROBLEM = "application/problem+json"


@contextmanager
def client_at(root: Path, now: datetime = NOW, **settings: Any) -> Iterator[TestClient]:
    """The app of the shops at a moment, with other settings where they are given."""
    with TestClient(create_app(CASES, replace(settings_at(root, now), **settings))) as client:
        yield client


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    """The status and the end of the problem's type, of a well-formed problem."""
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["title"]
    return answer.status_code, body["type"].removeprefix("urn:mlops:problem:")
