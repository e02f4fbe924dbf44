"""The house holds: import contracts, and what loading the code location may cost."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter import Contract
from importlinter.contracts.layers import LayersContract

from mlops_pipeline_tests.contracts import OnlyContract

ROOT = Path(__file__).parents[1]
HEAVY = (
    *("pandas", "mlflow", "evidently", "great_expectations"),
    *("lightgbm", "sklearn", "duckdb", "ibis"),
)
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
PACKAGES = sorted(
    ".".join(path.parent.relative_to(ROOT).parts)
    for path in (ROOT / "mlops_pipeline").glob("*/**/__init__.py")
)


def _run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_contracts_are_kept() -> None:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = _run(script, "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("mlops_pipeline", include_external_packages=True, cache_dir=None)


@contextmanager
def _planted(graph: grimp.ImportGraph, importer: str, imported: str) -> Iterator[None]:
    """A module in a new sub-package, with one import."""
    packages = [importer.rsplit(".", depth)[0] for depth in range(importer.count("."), -1, -1)]
    new = [name for name in packages if name not in graph.modules]
    is_new = imported not in graph.modules
    for name in new:
        graph.add_module(name)
    if is_new:
        graph.add_module(imported, is_squashed="." not in imported)
    graph.add_import(importer=importer, imported=imported, line_number=1, line_contents="import")
    yield
    for name in (*reversed(new), *([imported] if is_new else ())):
        graph.remove_module(name)


def _contract(options: dict[str, Any]) -> Contract:
    kind = {"only": OnlyContract, "layers": LayersContract}[options["type"]]
    session = {"root_packages": ["mlops_pipeline"], "include_external_packages": "true"}
    texts = {key: str(value) if value is True else value for key, value in options.items()}
    return kind(options["name"], session_options=session, contract_options=texts)


def _is_within(module: str, names: list[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("package", PACKAGES)
def test_only_contracts_refuse_an_import_planted_in_a_new_sub_package(
    package: str, graph: grimp.ImportGraph
) -> None:
    refused = 0
    for options in CONTRACTS:
        if options["type"] != "only" or _is_within(package, options.get("allowed_importers", [])):
            continue
        if not _is_within(package, options.get("importers", ["mlops_pipeline"])):
            continue
        for imported in options["imported"]:
            if imported in {package.rsplit(".", depth)[0] for depth in range(4)}:
                continue
            target = f"{imported}.planted" if imported.startswith("mlops_pipeline") else imported
            with _planted(graph, f"{package}.new.planted", target):
                check = _contract(options).check(graph, verbose=False)
            assert not check.kept, (options["name"], imported)
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("options", [item for item in CONTRACTS if item["type"] == "layers"])
def test_layers_refuse_every_import_upward_or_aside(
    options: dict[str, Any], graph: grimp.ImportGraph
) -> None:
    (container,) = options["containers"]
    layers = [[name.strip() for name in layer.split("|")] for layer in options["layers"]]
    above: list[str] = []
    for layer in layers:
        for name in layer:
            for other in (*above, *(beside for beside in layer if beside != name)):
                planted = f"{container}.{name}.new.planted"
                with _planted(graph, planted, f"{container}.{other}"):
                    assert not _contract(options).check(graph, verbose=False).kept, (name, other)
        above += layer


@pytest.mark.parametrize("container", ["mlops_pipeline", "mlops_pipeline.core"])
def test_floors_and_rooms_are_exhaustive(container: str, graph: grimp.ImportGraph) -> None:
    (options,) = [item for item in CONTRACTS if item.get("containers") == [container]]
    with _planted(graph, f"{container}.new.planted", "mlops_pipeline.errors"):
        assert not _contract(options).check(graph, verbose=False).kept


def test_code_location_loads_without_heavy_libraries() -> None:
    done = _run(
        "import sys; import mlops_pipeline.definitions; "
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
