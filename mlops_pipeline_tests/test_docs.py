"""The documentation is complete and true: what there is stands in it, what it names is there."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline import errors
from mlops_pipeline.cli.app import app
from mlops_pipeline.config import load_use_case
from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.documents.records import EvaluatedTraining
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult
from mlops_pipeline.core.rollout.machine import Event
from mlops_pipeline.lifecycle.alerts import NewAlert, raise_alert
from mlops_pipeline.lifecycle.bookkeeping import record_step_seconds, set_pointer, start_lifecycle
from mlops_pipeline.lifecycle.exceptions import grant_exception
from mlops_pipeline.lifecycle.rollouts import get_rollout, open_rollout, send
from mlops_pipeline.lifecycle.status import use_case_status
from mlops_pipeline.orchestration.build import build_definitions
from mlops_pipeline.serving.http import create_app
from mlops_pipeline.serving.problems import ALL_PROBLEMS, TYPE_PREFIX
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.core.documents.card_example import evaluation
from mlops_pipeline_tests.documentation import (
    CONFIGS,
    ROOT,
    blocks,
    example_name,
    page_name,
    rows,
    sections,
    text_of,
)

DOCS = ROOT / "docs"
PAGES = sorted(
    {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md"), *DOCS.rglob("0*.md")}
)
FOLDERS = r"mlops_pipeline|mlops_pipeline_tests|configs|docs|benchmarks|deploy|\.github|\.ci"
FILES = (
    r"README\.md|CONTRIBUTING\.md|CHANGELOG\.md|LICENSE|Makefile|[a-z]+\.toml|[a-z]+\.lock"
    r"|dagster\.yaml|workspace\.yaml"
)
PATH = re.compile(rf"(?<![\w/.<-])((?:{FOLDERS})/[\w./*<>-]*|(?:{FILES})(?![\w/]))")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def all_of_it() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in PAGES)


# what is named exists


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_documented_path_exists(page: Path) -> None:
    for found in PATH.findall(page.read_text(encoding="utf-8")):
        path = found.rstrip(".")
        if "<" in path or path == f"configs/{example_name()}.yaml":
            continue
        assert list(ROOT.glob(path)) if "*" in path else (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_internal_link_resolves(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name) if name else page
        assert path.exists(), target
        if fragment:
            headings = re.findall(r"^#{1,6} +(.+)$", path.read_text(encoding="utf-8"), flags=re.M)
            assert fragment in [anchor(item) for item in headings], target


def test_every_page_is_linked_from_the_readme() -> None:
    readme = text_of("README.md")
    for page in DOCS.glob("*.md"):
        assert f"(docs/{page.name})" in readme, page.name


def test_make_targets_are_those_of_the_makefile() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", text_of("Makefile"), flags=re.M)
    assert phony is not None
    targets = set(phony[1].split())
    documented = {row[0] for row in rows(sections(text_of("docs/settings.md"))["Make targets"])}
    assert documented == {f"`make {target}`" for target in targets}
    named = re.findall(r"(?:`|^ +)make ([a-z][a-z-]*)", all_of_it(), flags=re.M)
    assert set(named) <= targets
    readme = {row[0] for row in rows(sections(text_of("README.md"))["Make targets"])}
    assert readme == documented - {"`make help`"}


# settings


def test_settings_are_those_that_are_read() -> None:
    read = set(re.findall(r'"(MLOPS_\w+)"', text_of("mlops_pipeline/stores/settings.py")))
    table = rows(sections(text_of("docs/settings.md"))["Environment variables"])
    assert {row[0].strip("`") for row in table} == read
    for path in (ROOT / "mlops_pipeline").rglob("*.py"):
        named = set(re.findall(r"\bMLOPS_\w+", path.read_text(encoding="utf-8")))
        assert named <= read, path


# the command


def _commands() -> Iterator[tuple[str, Any]]:
    from typer.main import get_command

    def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield name, command
            return
        for child_name, child in command.commands.items():
            yield from leaves(f"{name} {child_name}", child)

    yield from leaves("mlops", get_command(app))


COMMANDS = list(_commands())


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_command_is_documented_with_every_option(name: str, command: Any) -> None:
    section = sections(text_of("docs/cli.md"))[name]
    documented = {flag for row in rows(section) for flag in re.findall(r"--[a-z-]+", row[0])}
    options = {}
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            shown = str(parameter.name).upper()
            assert shown in section, shown
        elif parameter.name != "help":
            flags = [*parameter.opts, *parameter.secondary_opts]
            options.update(dict.fromkeys(flags, parameter))
    assert documented == set(options)
    for row in rows(section):
        parameter = options[re.findall(r"--[a-z-]+", row[0])[0]]
        if parameter.required:
            assert row[1] == "required"
        elif isinstance(parameter.default, int) and not isinstance(parameter.default, bool):
            assert row[1] == f"`{parameter.default}`"


def test_no_command_is_documented_that_is_not_there() -> None:
    real = {name for name, _ in COMMANDS}
    headings = {head for head in sections(text_of("docs/cli.md")) if head.startswith("mlops ")}
    assert headings == real
    words = re.findall(
        r"(?:`|^ +)mlops "
        r"((?:simulate |config |features |exception |audit |registry |keys |review |clock |rollout "
        r"|card (?=show|review))?"
        r"[a-z-]+)\b",
        all_of_it(),
        flags=re.M,
    )
    groups = {"simulate", "config", "features", "exception", "audit", "registry", "card", "keys",
              "review", "clock", "rollout"}  # fmt: skip
    assert {f"mlops {word}" for word in words if word not in groups} <= real


def _keys(document: Any, prefix: str = "") -> set[str]:
    found: set[str] = set()
    if isinstance(document, list):
        for item in document:
            if isinstance(item, dict):
                found |= _keys(item, f"{prefix[:-1]}[].")
    elif isinstance(document, dict):
        named = {"champion.metrics.", "data.", "last_run.seconds."}
        for key, value in document.items():
            name = f"{prefix}*" if prefix in named else f"{prefix}{key}"
            if not (prefix in named and not isinstance(value, dict)):
                found |= set() if prefix in named else {name}
                found |= _keys(value, f"{name}.")
    return found


def test_status_document_has_the_documented_keys(tmp_path: Path) -> None:
    document = _status_of_a_busy_use_case(tmp_path)
    section = sections(text_of("docs/cli.md"))["The document of mlops status --json"]
    documented = {row[0].strip("`") for row in rows(section)}
    assert _keys(document) == documented
    example = json.loads(blocks(text_of("docs/cli.md"), "json")[0])
    assert _keys(example) == documented


def _status_of_a_busy_use_case(tmp_path: Path) -> dict[str, Any]:
    use_case = load_use_case(CONFIGS / "churn.yaml")
    settings = Settings.from_environment({"MLOPS_DATA_DIR": str(tmp_path)})
    now = datetime(2025, 1, 5, tzinfo=UTC)
    rule = RuleResult("roc_auc at least 0.7", 0.8, 0.7, "passed", "block", "it is")
    folder = Lake(settings.lake_uri).documents_folder(use_case.name, "f1")
    folder.mkdir(parents=True)
    evaluated = EvaluatedTraining(evaluation(), Gate(True, False, (rule,)))
    (folder / "evaluation.json").write_text(json.dumps(evaluated.document()), encoding="utf-8")
    with OpsDatabase.open(settings.database_url) as ops:
        for version, state in ((1, "champion"), (2, "running")):
            open_rollout(
                ops,
                "churn",
                version,
                mlflow_run_id="m",
                dagster_run_id="d",
                fingerprint=f"f{version}",
                policy=RolloutPolicy.model_validate({"stages": ["shadow", "full"]}),
                state=state,  # type: ignore[arg-type] # both are opening states
                reason="a test",
                waiting_for="somebody",
                now=now,
            )
        send(ops, get_rollout(ops, "churn", 2), Event("ask", "mlops", "good", now, "somebody"))
        accepted = {"accounts": {"version": 0, "rows": 9, "quarantined": 1}}
        set_pointer(ops, "churn", "accepted", accepted, run_id="d", now=now)
        trained = {"fingerprint": folder.name}
        set_pointer(ops, "churn", "trained_model", trained, run_id="d", now=now)
        start_lifecycle(ops, "churn", "d", as_of=now, trigger="manual", now=now)
        record_step_seconds(ops, "churn", "d", "features", 1.5)
        for attribute in ("region", None):
            grant_exception(
                ops,
                "churn",
                "demographic_parity",
                attribute,
                by="somebody",
                reason="a test",
                expires_at=datetime(9999, 1, 1, tzinfo=UTC),
                now=now,
            )
        raise_alert(ops, "churn", NewAlert("run_failed", "error", "it failed", "mend it"), now=now)
    return use_case_status(use_case, settings)


# assets, jobs, sensors, schedules


@cache
def _repository() -> Any:
    return build_definitions().get_repository_def()


def _generic(name: str) -> str:
    for use_case in (path.stem for path in CONFIGS.glob("*.yaml")):
        if name.startswith(f"{use_case}_"):
            return f"<use_case>_{name.removeprefix(f'{use_case}_')}"
    return name


def test_every_asset_has_a_section() -> None:
    graph = build_definitions().resolve_asset_graph()
    assets = {key.path[-1] for key in graph.get_all_asset_keys()}
    headings = re.findall(r"^## (.+)$", text_of("docs/assets.md"), flags=re.M)
    assert set(headings) == assets | {"Jobs", "Sensors", "Schedules"}
    assert {key.name for key in graph.asset_check_keys} == {
        f"{source}_rules"
        for path in CONFIGS.glob("*.yaml")
        for source in load_use_case(path).sources
    } | {"no_leak", "precision_kept", "no_row_left_out", "inputs_arrive", "fairness_within_limits"}
    assert "`<source>_rules`" in sections(text_of("docs/assets.md"))["validated_data"]


@pytest.mark.parametrize("kind", ["Jobs", "Sensors", "Schedules"])
def test_every_job_sensor_and_schedule_is_documented(kind: str) -> None:
    found = {
        "Jobs": [job.name for job in _repository().get_all_jobs() if job.name[0] != "_"],
        "Sensors": [sensor.name for sensor in _repository().sensor_defs],
        "Schedules": [schedule.name for schedule in _repository().schedule_defs],
    }[kind]
    table = rows(sections(text_of("docs/assets.md"))[kind])
    assert {row[0].strip("`") for row in table} == {_generic(name) for name in found}


def test_every_error_is_in_the_runbook() -> None:
    known = {
        name
        for name, item in vars(errors).items()
        if isinstance(item, type) and issubclass(item, errors.MlopsError)
    }
    table = rows(sections(text_of("docs/runbook.md"))["Errors by name"])
    assert {row[0].strip("`") for row in table} == known


# HTTP


def test_every_endpoint_and_problem_is_documented() -> None:
    app_of_none = create_app({}, Settings.from_environment({}))
    endpoints = {
        f"`{method.upper()} {path}`"
        for path, methods in app_of_none.openapi()["paths"].items()
        for method in methods
    }
    page = sections(text_of("docs/serving.md"))
    assert {row[0] for row in rows(page["Endpoints"])} == endpoints
    types = {f"`{TYPE_PREFIX}{item.slug}`" for item in ALL_PROBLEMS}
    documented = {row[0]: row[1] for row in rows(page["Problems"])}
    assert set(documented) == types | {"`about:blank`"}
    for item in ALL_PROBLEMS:
        assert documented[f"`{TYPE_PREFIX}{item.slug}`"] == str(item.status)


def test_every_endpoint_with_parameters_has_a_section_that_names_them() -> None:
    app_of_none = create_app({}, Settings.from_environment({}))
    for path, methods in app_of_none.openapi()["paths"].items():
        for method, operation in methods.items():
            named = {item["name"] for item in operation.get("parameters", [])}
            if named:
                section = sections(text_of("docs/serving.md"))[f"{method.upper()} {path}"]
                for name in named:
                    assert f"`{name}`" in section, name
