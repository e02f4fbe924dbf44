"""The service does what its own OpenAPI says: requests made from it find no other answer."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mlops_pipeline.serving.http import create_app
from mlops_pipeline_tests.documentation import rows, sections, text_of
from mlops_pipeline_tests.serving.served_shop import release
from mlops_pipeline_tests.serving.shops import CASES, settings_at
from mlops_pipeline_tests.serving.test_server import running
from mlops_pipeline_tests.sizes import size

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance,
          response_schema_conformance]  # fmt: skip


@pytest.mark.sized
def test_no_request_made_from_the_openapi_is_answered_otherwise(changed: Path) -> None:
    release(settings_at(changed))
    with running(changed) as client:
        schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
        asked = 0
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()

            @settings(
                max_examples=size(10, 500),
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def check(case: Any) -> None:
                nonlocal asked
                asked += 1
                case.call_and_validate(checks=CHECKS)

            check()
        assert asked > 50


def test_document_says_which_key_opens_what_and_its_examples_are_valid(shops: Path) -> None:
    table = rows(sections(text_of("docs/serving.md"))["Endpoints"])
    scopes = {row[0].strip("`"): row[1].strip("`") for row in table}
    for asks in (True, False):
        document = create_app(CASES, settings_at(shops), asks_for_keys=asks).openapi()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                scope = scopes[f"{method.upper()} {path}"]
                named = [name for one in operation["security"] for name in one]
                assert operation.get("x-scope", "none") == scope
                assert named == ([] if scope == "none" else ["bearer", "header"])
                assert ({} in operation["security"]) is (scope != "none" and not asks)
    shown = 0
    for schema in document["components"]["schemas"].values():
        check = Draft202012Validator({**schema, "components": document["components"]})
        for example in schema.get("examples", ()):
            check.validate(example)
            shown += 1
    assert shown >= 5
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
