"""The house holds: import contracts, and what loading the code location may cost."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = (
    *("pandas", "mlflow", "evidently", "great_expectations"),
    *("lightgbm", "sklearn", "duckdb", "ibis"),
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


def test_code_location_loads_without_heavy_libraries() -> None:
    done = _run(
        "import sys; import mlops_pipeline.definitions; "
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
