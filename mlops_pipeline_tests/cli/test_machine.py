"""What the machine refuses is one message, whatever library says it and however."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_pipeline.cli import app
from mlops_pipeline.errors import MachineError

REFUSED = """
import json, random, resource, sys
from pathlib import Path
import duckdb, pyarrow as pa
from deltalake import write_deltalake
from pyarrow import parquet
from mlops_pipeline.errors import MachineError, MlopsError
from mlops_pipeline.stores.files import write_json
from mlops_pipeline.stores.online.interface import open_online_store
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.predictions import PredictionLog

root, said = Path(sys.argv[1]), {}
table = pa.table({"a": [random.random() for _ in range(20_000)]})
copy = f"COPY (SELECT random() FROM range(20000)) TO '{root}/copy.parquet' (FORMAT parquet)"
spill = "SELECT list(range ORDER BY random()) FROM range(200000)"
small = {"memory_limit": "1MB", "max_temp_directory_size": "0MB"}
trials = {
    "room: files": lambda: write_json(root / "x.json", {"a": "x" * 50_000}),
    "room: delta": lambda: write_deltalake(str(root / "t"), table),
    "room: duckdb": lambda: duckdb.sql(copy),
    "room: parquet": lambda: parquet.write_table(table, root / "q.parquet"),
    "room: ops": lambda: OpsDatabase.open(f"sqlite:///{root / 'new.db'}"),
    "room: predictions": lambda: PredictionLog(f"sqlite:///{root / 'p.db'}"),
    "room: online": lambda: open_online_store(f"sqlite:///{root / 'o.db'}", timeout_ms=50),
    "path: nul": lambda: (root / "a\\0b").mkdir(),
    "path: nul, delta": lambda: write_deltalake(f"{root}/a\\0b", table),
    "path: below a file, delta": lambda: write_deltalake(f"{root}/file/x", table),
    "path: proc, delta": lambda: write_deltalake("/proc/x/y", table),
    "text: delta": lambda: write_deltalake(f"{root}/a\\ud800b", table),
    "text: duckdb": lambda: duckdb.sql(f"FROM read_parquet('{root}/a\\ud800b')"),
    "memory: duckdb": lambda: duckdb.connect(config=small).sql(spill).fetchall(),
}
(root / "file").touch()
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for name, trial in trials.items():
    try:
        trial()
    except BaseException as error:
        known = error if isinstance(error, MlopsError) else MachineError.of(error)
        said[name] = str(known or repr(error))
print(json.dumps(said))
"""
WHAT = {
    "room": "there is no room left on a disk",
    "path": "a path cannot be used",
    "text": "a text or path is not valid Unicode",
    "memory": "there is no memory left",
}


def test_library_that_the_machine_refuses_something_is_one_message(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REFUSED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert len(said) == 14
    for name, store in {"ops": "ops database", "predictions": "log", "online": "store"}.items():
        text = said.pop(f"room: {name}")
        assert store in text.splitlines()[0]
        assert "disk I/O error" in text
        assert "what to do" in text
    for name, text in said.items():
        assert text.splitlines()[0] == WHAT[name.partition(":")[0]], (name, text)
        assert "what to do" in text


@pytest.mark.parametrize(
    "case",
    [
        ("MLOPS_NOW", "9999-12-31T23:59:59-05:00", "not a date or time"),
        ("MLOPS_NOW", "0001-01-01T00:00:00+05:00", "not a date or time"),
        ("MLOPS_NOW", "9999-12-31", "not a time of the Clock"),
        ("MLOPS_DATA_DIR", "{folder}/file/data", "a path cannot be used"),
        ("MLOPS_DATA_DIR", f"{{folder}}/{'x' * 300}", "a path cannot be used"),
        ("MLOPS_DATA_DIR", "{folder}/\udcff", "a text or path is not valid Unicode"),
        ("MLOPS_DATABASE_URL", "sqlite:////proc/x/ops.db", "a path cannot be used"),
        ("MLOPS_DATABASE_URL", "sqlite:///{folder}/file", "The ops database cannot be opened."),
    ],
)
def test_command_with_a_setting_that_the_machine_refuses_is_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: tuple[str, str, str],
) -> None:
    setting, value, expected = case
    (tmp_path / "file").write_text("text")
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv(setting, value.format(folder=tmp_path))
    monkeypatch.setattr(sys, "argv", ["mlops", "status", "churn"])
    monkeypatch.setattr(app, "keep_private", lambda: None)
    with pytest.raises(SystemExit) as ended:
        app.main()
    printed = capsys.readouterr().err
    assert ended.value.code == 1
    assert printed.startswith(f"error: {expected}\n")
    assert "Traceback" not in printed


def test_error_about_a_value_is_none_of_the_machine() -> None:
    error = ValueError("Could not convert string 'No space left on device' to INT64")
    assert MachineError.of(error) is None
    assert MachineError.of(KeyboardInterrupt()) is None


def test_path_that_the_machine_refuses_is_shown_as_it_is() -> None:
    error = MachineError.of(FileNotFoundError(2, "No such file or directory", "/data/Ann/17"))
    assert "'/data/Ann/17'" in str(error)
