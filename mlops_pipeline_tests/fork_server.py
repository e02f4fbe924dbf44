"""One process that has imported what a lifecycle imports; all test processes have theirs forked.

Importing Dagster, MLflow and the others takes longer than a small lifecycle does. The first test
that needs a process starts the server; it ends with the pytest that the tests belong to. A forked
process leads a process group of its own.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

POLL_S = 0.01
START_S = 240.0  # the imports, on a machine that is busy
FRESH = "MLOPS_TEST_FRESH"  # in the environment of a command: start a new Python where asked to
_started_here: list[subprocess.Popen[bytes]] = []  # held: it outlives what started it
_own_address: Path | None = None  # in a process that the server forked


@dataclass
class Forked:
    """A process that the server forked, with what multiprocessing.Process has of it."""

    connection: Connection
    pid: int
    exitcode_seen: int | None = field(default=None)

    @property
    def exitcode(self) -> int | None:
        """As of subprocess: negative for a signal; None while it runs."""
        self.join(0)
        return self.exitcode_seen

    def join(self, timeout: float | None = None) -> None:
        if self.exitcode_seen is None and self.connection.poll(timeout):
            self.exitcode_seen = self.connection.recv()
            self.connection.close()


def fork(work: str, *arguments: Any) -> Forked:
    """Have the named function of this module run in a process of its own."""
    connection = _connected(_own_address or _started())
    connection.send((work, arguments))
    return Forked(connection, connection.recv())


def run_python(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Do what subprocess.run does with `python -c CODE ARGUMENT ...`, in a forked process.

    It has loaded heavy libraries before; of this project it has nothing.
    """
    _, flag, code, *words = command
    assert flag == "-c", command
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        forked = fork("_python", code, words, str(options["cwd"]), dict(options["env"]), *files)
        forked.join(options["timeout"])
        if forked.exitcode is None:
            os.killpg(forked.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, options["timeout"])
        said = [Path(name).read_text() for name in files]
    return subprocess.CompletedProcess(command, forked.exitcode, *said)


def _started() -> Path:
    """Return the address of the server of this pytest; the first one starts it."""
    belongs_to = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(belongs_to))
    folder = Path(tempfile.gettempdir()) / f"mlops-tests-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    address = folder / "server"
    with alone(folder / "lock"):
        if not address.exists():
            server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(address), str(belongs_to)],
                cwd=Path(__file__).parents[1],
                env={key: text for key, text in os.environ.items() if not _is_ours(key)},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            _started_here.append(server)
            deadline = time.monotonic() + START_S
            while not address.exists():
                assert time.monotonic() < deadline, "the fork server did not start"
                time.sleep(POLL_S)
    return address


def _is_ours(name: str) -> bool:
    """A setting of the test that comes first is not one of the next."""
    return name.startswith("MLOPS_") or name == "DAGSTER_HOME"


@contextmanager
def alone(path: Path) -> Any:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _connected(address: Path) -> Connection:
    return Client(str(address), family="AF_UNIX")


# the server


def serve(address: str, belongs_to: int) -> None:
    """Fork what is asked for until the pytest that this belongs to has ended."""
    global _own_address  # noqa: PLW0603 # what it forks inherits it
    from mlops_pipeline_tests import warm  # noqa: F401 # for its imports

    _own_address = Path(address)
    hidden = f"{address}.starting"
    children: dict[int, Connection] = {}
    with Listener(hidden, family="AF_UNIX", backlog=32) as listener:
        Path(hidden).rename(address)
        waiting: Any = listener._listener._socket  # type: ignore[attr-defined] # to wait for it
        while _is_alive(belongs_to):
            if wait([waiting], POLL_S):
                connection = listener.accept()
                work, arguments = connection.recv()
                pid = os.fork()
                if pid == 0:
                    _be(globals()[work], arguments)
                connection.send(pid)
                children[pid] = connection
            _reap(children)
        Path(address).rename(hidden)  # where the listener looks for it
    shutil.rmtree(Path(address).parent)


def _be(work: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        work(*arguments)
        code = 0
    except SystemExit as asked:
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
    except BaseException:  # noqa: BLE001 # the last line of a process: what it says is in its log
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _reap(children: dict[int, Connection]) -> None:
    for pid in list(children):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            connection = children.pop(pid)
            with connection, suppress(OSError):  # when nobody waits for it any more
                connection.send(os.waitstatus_to_exitcode(status))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# what is forked


def _write_to(*files: str) -> None:
    for descriptor, name in enumerate(files, start=1):
        with open(name, "ab") as file:  # noqa: PTH123 # a descriptor to hand over
            os.dup2(file.fileno(), descriptor)


def _python(
    code: str,
    words: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    *files: str,
) -> None:
    _write_to(*files)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for name in [name for name in sys.modules if name.split(".")[0] == "mlops_pipeline"]:
        del sys.modules[name]
    sys.argv = ["-c", *words]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # as `python -c`


def _command(root: str, environment: Mapping[str, str], words: Sequence[str], log: str) -> None:
    """Be `dagster ...`, or the command that the first word names."""
    import warnings

    os.chdir(root)
    os.environ.update(environment)
    _write_to(log, log)
    warnings.simplefilter("ignore")
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli

    from mlops_pipeline.cli.app import main
    from mlops_pipeline.stores.models import contract
    from mlops_pipeline_tests.killed import killed_at

    if FRESH not in environment:  # for most tests a fork is fresh enough
        vars(contract)["subprocess"] = SimpleNamespace(
            run=run_python, TimeoutExpired=subprocess.TimeoutExpired
        )
    with killed_at(environment, Path(f"{log}.lines")):
        if words[0] == "mlops":
            sys.argv = list(words)
            main()
        if words[0] == "daemon":
            create_dagster_daemon_cli().main(args=list(words[1:]), prog_name="dagster-daemon")
        cli = create_dagster_cli()  # type: ignore[no-untyped-call] # it has no annotation
        cli.main(args=list(words), prog_name="dagster")


if __name__ == "__main__":
    sys.modules["mlops_pipeline_tests.fork_server"] = sys.modules["__main__"]
    serve(sys.argv[1], int(sys.argv[2]))
