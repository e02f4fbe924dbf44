"""The servers that are compared: how each is started, asked, and known to be ready.

Peers stand in environments of their own, found below BENCHMARK_PEERS (`bentoml/`, `mlserver/`, each
a venv with the package of its name, LightGBM and its runtime); one that is not there is reported as
not installed. All have one worker, and the same LightGBM text.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import ROOT

PACKAGE = "mlops-pipeline"
BENTO = """
import bentoml, lightgbm, numpy as np

@bentoml.service(workers=1)
class Bench:
    def __init__(self) -> None:
        self.booster = lightgbm.Booster(model_file={model!r})

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.booster.predict(rows.astype("float32"), num_threads=1)
"""


@dataclass(frozen=True)
class Server:
    """A server: its command, where a request goes, and the body around a row or rows of numbers.

    `body` has ROWS where the rows go; None: it is asked for entities.
    """

    name: str
    command: list[str]
    port: int
    path: str
    folder: Path
    body: str | None
    extra: Mapping[str, str] = field(default_factory=dict)
    rows_at_once: int = 1
    package: str = ""

    def version(self) -> str:
        """Return the version of its package, in its own environment."""
        script = f"import importlib.metadata as found; print(found.version({self.package!r}))"
        command = [str(Path(self.command[0]).parent / "python"), "-c", script]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def bare(root: Path, port: int, rows: int = 1) -> Server:
    """The raw ASGI callable."""
    command = [sys.executable, "-m", "uvicorn", "benchmarks.serving.bare:app", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    extra = {"MODEL": str(root / "model.txt")}
    name = "bare.py" if rows == 1 else f"bare.py, {rows} rows"
    return Server(name, command, port, "/", ROOT, '{"rows": ROWS}', extra, rows, "uvicorn")


def ours(root: Path, port: int, key: str, name: str, rows: int = 1) -> Server:
    """The service: an entity in the body, a key, a rate limit, the log."""
    command = [sys.executable, "-m", "mlops_pipeline", "serve", "--port", str(port)]
    extra = {"KEY": key, "MLOPS_DATA_DIR": str(root / "data"), "MLOPS_RATE_LIMIT": "1000000000"}
    return Server(
        name, [*command, "--require-keys"], port, "/v1/predict", root, None, extra, rows, PACKAGE
    )


def peers(root: Path) -> list[Server]:
    """Those of the others that are installed."""
    found = [_mlflow(root, 8_411)]
    for make, port in ((_bentoml, 8_412), (_mlserver, 8_413)):
        server = make(root, port)
        if Path(server.command[0]).exists():
            found.append(server)
    return found


def _mlflow(root: Path, port: int) -> Server:
    script = (
        "import lightgbm, mlflow.lightgbm;"
        "mlflow.lightgbm.save_model(lightgbm.Booster(model_file='model.txt'), 'mlflow')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True)
    tools = Path(sys.executable).parent
    command = [str(tools / "mlflow"), "models", "serve", "-m", "mlflow"]
    command += ["--env-manager", "local", "--workers", "1", "--port", str(port)]
    extra = {"PATH": f"{tools}:{os.environ['PATH']}"}
    names = json.dumps([f"Column_{place}" for place in range(45)])
    body = '{"dataframe_split": {"columns": NAMES, "data": ROWS}}'.replace("NAMES", names)
    return Server(
        "mlflow models serve", command, port, "/invocations", root, body, extra, package="mlflow"
    )


def _bentoml(root: Path, port: int) -> Server:
    folder = root / "bento"
    folder.mkdir()
    (folder / "service.py").write_text(BENTO.format(model=str(root / "model.txt")))
    command = [_peer("bentoml"), "serve", "service:Bench", "--port", str(port)]
    extra = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder)}
    body = '{"rows": ROWS}'
    return Server("BentoML", command, port, "/predict", folder, body, extra, package="bentoml")


def _mlserver(root: Path, port: int) -> Server:
    folder = root / "mlserver"
    folder.mkdir()
    ports = {"http_port": port, "grpc_port": port + 100, "metrics_port": port + 200}
    settings = {**ports, "parallel_workers": 0, "debug": False, "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "bench",
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": str(root / "model.txt")},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    tensor = '{"name": "rows", "shape": [1, 45], "datatype": "FP32", "data": ROWS}'
    body = f'{{"inputs": [{tensor}]}}'
    path = "/v2/models/bench/infer"
    command = [_peer("mlserver"), "start", "."]
    return Server("MLServer", command, port, path, folder, body, package="mlserver")


def _peer(name: str) -> str:
    base = os.environ.get("BENCHMARK_PEERS", "peers")
    return str(Path(base).absolute() / name / "bin" / name)
