"""Errors as HTTP answers: problem documents of RFC 9457, one handler for all of ours.

Belongs here: which error is which status. What went wrong is said by errors.py; a caller is told
what concerns the request, what concerns the inside stands in the log.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from mlops_pipeline.errors import (
    DataError,
    MlopsError,
    NotFoundError,
    OnlineCorruptError,
    OnlineDefinitionError,
    OnlineFullError,
    OnlineStoreError,
    OnlineTimeoutError,
    OnlineUnavailableError,
    PredictionLogError,
    RequestConflictError,
    ReviewedError,
)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:mlops:problem:"
SOON_S = 1  # a store that was slow or away may be back at once
AFTER_REPAIR_S = 60  # somebody has to materialize again first
NEVER_STORE = {"Cache-Control": "no-store"}  # answers hold personal data

logger = logging.getLogger(__name__)


class Problem(NamedTuple):
    """What a class of errors is to a caller."""

    slug: str
    status: int
    title: str
    retry_after_s: int | None = None


PROBLEMS: dict[type[Exception], Problem] = {  # the nearest class of an error counts
    NotFoundError: Problem("not-found", 404, "Something named does not exist"),
    DataError: Problem("unusable-request", 422, "The request cannot be used as it is"),
    RequestConflictError: Problem("request-conflict", 409, "The id was used for another request"),
    ReviewedError: Problem("reviewed", 409, "A person decided about this answer before"),
    PredictionLogError: Problem("log-unavailable", 503, "Answers cannot be stored", SOON_S),
    OnlineTimeoutError: Problem("store-timeout", 503, "The store did not answer in time", SOON_S),
    OnlineUnavailableError: Problem("store-unavailable", 503, "The store is away", SOON_S),
    OnlineFullError: Problem("store-full", 503, "The store has no room", AFTER_REPAIR_S),
    OnlineCorruptError: Problem("store-corrupt", 503, "A stored value is damaged", AFTER_REPAIR_S),
    OnlineDefinitionError: Problem(
        "store-outdated", 503, "Stored values are of other definitions", AFTER_REPAIR_S
    ),
    OnlineStoreError: Problem("store-failed", 503, "The store failed", SOON_S),
    Exception: Problem("internal", 500, "Something went wrong inside"),
}
UNKNOWN_ID = Problem("unknown-id", 404, "The store knows no entity of this id")
KEY_UNKNOWN = Problem("key-unknown", 401, "A valid key is needed")
KEY_LACKS_SCOPE = Problem("key-lacks-scope", 403, "The key is not for this")
TOO_LARGE = Problem("too-large", 413, "The body is too large")
HEADERS_TOO_LARGE = Problem("headers-too-large", 431, "The headers are too large")
RATE_LIMITED = Problem("rate-limited", 429, "Too many requests of this key")
NOT_READY = Problem("not-ready", 503, "No model answers", SOON_S)
OVERLOADED = Problem("overloaded", 503, "Too many requests at once", SOON_S)
TIMED_OUT = Problem("timed-out", 504, "The answer took too long", SOON_S)
ALL_PROBLEMS = (
    *PROBLEMS.values(), UNKNOWN_ID, KEY_UNKNOWN, KEY_LACKS_SCOPE, TOO_LARGE, HEADERS_TOO_LARGE,
    RATE_LIMITED, NOT_READY, OVERLOADED, TIMED_OUT,
)  # fmt: skip
GUARDED = (401, 403, 413, 429, 431, 503, 504)  # what every endpoint but health may answer


class ProblemDocument(BaseModel):
    """A problem document (RFC 9457); the texts are for people, `type` is for programs."""

    type: str
    title: str
    status: int
    error: str  # what clients of the inference protocol show
    detail: str | None = None
    where: str | None = None
    expected: str | None = None
    found: str | None = None
    way_out: str | None = None


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the problems that an endpoint answers with."""
    schema = ProblemDocument.model_json_schema()
    return {
        status: {
            "description": "; ".join(
                dict.fromkeys(item.title for item in ALL_PROBLEMS if item.status == status)
            )
            or HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def add_handlers(app: FastAPI) -> None:
    """Answer every error with a problem document."""
    app.add_exception_handler(MlopsError, _known)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(Exception, _unforeseen)  # it is raised on, for the server's log


def answer(
    problem: Problem,
    *,
    detail: str | None = None,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as a response: `detail` is this occurrence, `more` further members."""
    body = {"type": f"{TYPE_PREFIX}{problem.slug}", "title": problem.title,
            "status": problem.status, "error": detail or problem.title}  # fmt: skip
    if detail:
        body["detail"] = detail
    headers = {**NEVER_STORE, **(headers or {})}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    return JSONResponse(
        {**body, **(more or {})}, problem.status, headers=headers, media_type=MEDIA_TYPE
    )


def problem_of(error: Exception) -> Problem:
    """Return what an error is to a caller."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def refusal(error: Exception) -> Response:
    """Return what is answered to an error, outside of the app that has the handlers."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False)
        located = [{**item, "loc": ("body", *item["loc"])} for item in found]
        return _unreadable(None, RequestValidationError(located))
    if isinstance(error, MlopsError):
        return _known(None, error)
    logger.error("a request failed", exc_info=error)
    return _unforeseen(None, error)


def _known(_request: Request | None, error: Exception) -> Response:
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s: %s", problem.slug, error)
        return answer(problem)
    parts = {name: getattr(error, name) for name in ("where", "expected", "found", "way_out")}
    return answer(
        problem,
        detail=getattr(error, "what", None),
        more={name: text for name, text in parts.items() if text},
    )


def _refused(_request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: an unknown path, another method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == TOO_LARGE.status:
        return answer(TOO_LARGE)
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "error": title}
    headers = {**NEVER_STORE, **(getattr(error, "headers", None) or {})}
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def _unreadable(_request: Request | None, error: Exception) -> Response:
    """Answer a body or parameter that is not of its type; the value is not repeated."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    where = ", ".join(".".join(map(str, item["loc"])) for item in found)
    expected = "; ".join(dict.fromkeys(str(item["msg"]) for item in found))
    return answer(
        PROBLEMS[DataError],
        detail="the request cannot be read",
        more={"where": where, "expected": expected},
    )


def _unforeseen(_request: Request | None, _error: Exception) -> Response:
    return answer(PROBLEMS[Exception])
