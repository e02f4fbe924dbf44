"""Benchmark: requests a second of the prediction service, beside other servers of the same model.

wrk with 16 connections, one worker each, one row: ours is given the id of one of 100,000 entities,
checks a key and a rate limit, reads the features in SQLite and stores the answer, synced to the
disk, or left to the system (durability process); the others are given 45 numbers. Rounds alternate,
ratios are of the same round, the median is shown. One fdatasync is of a page that is written over
in a file beside the log, as SQLite's log of changes is; it is measured in each round.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import PAGE_BYTES
from benchmarks.result import Result, Row
from benchmarks.serving.peers import Server, bare, ours, peers
from benchmarks.serving.world import ENTITIES, make_project, write_peers

CONNECTIONS, SECONDS, ROUNDS, LIST = 16, 4, 5, 100
READY_SECONDS = 90
TICKS = os.sysconf("SC_CLK_TCK")
SCRIPT = Path(__file__).with_name("load.lua")
TARGETS = {"mlflow models serve": 30, "BentoML": 5, "MLServer": 2, "bare.py": 0.8}
DISK, PROCESS, LISTS, BARE_LISTS = "ours", "ours, process", "ours, 100 rows", "bare.py, 100 rows"

Figures = dict[str, float]


def main(seconds: int, rounds: int) -> None:
    """Start all, ask in turn, print."""
    with TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as folder, ExitStack() as stack:
        root = Path(folder)
        write_peers(root)
        keys = {name: make_project(root / name, name) for name in ("disk", "process")}
        servers = [
            ours(root / "disk", 8_401, keys["disk"], DISK),
            ours(root / "process", 8_403, keys["process"], PROCESS),
            bare(root, 8_402),
            *peers(root),
        ]
        started = {one.name: stack.enter_context(running(one, root)) for one in servers}
        found, syncs_us = [], []
        for _ in range(rounds):
            syncs_us += fdatasyncs_us(root / "sync")
            found.append(
                {one.name: load(one, started[one.name][0], root, seconds) for one in servers}
            )
        lists = (
            (ours(root / "process", 8_403, keys["process"], LISTS, LIST), PROCESS),
            (bare(root, 8_402, LIST), "bare.py"),
        )
        for number in range(rounds):
            for server, name in lists:
                found[number][server.name] = load(server, started[name][0], root, seconds)
        ready = {name: one[1] for name, one in started.items()}
        versions = {one.name: f"{one.package} {one.version()}" for one in servers}
    report(found, ready, sorted(syncs_us), versions).print()


def report(
    found: Sequence[dict[str, Figures]],
    ready: Figures,
    syncs_us: Sequence[float],
    versions: Mapping[str, str],
) -> Result:
    """Return medians of all rounds, and of the ratios in each round."""

    def ratio(name: str, other: str, of: str = "rate") -> float:
        return statistics.median(one[name][of] / one[other][of] for one in found)

    names = list(found[0])
    rows: list[Row] = [
        {
            "server": name,
            "requests/s": round(_median(found, name, "rate")),
            "p50 (ms)": round(_median(found, name, "p50_us") / 1e3, 2),
            "p99 (ms)": round(_median(found, name, "p99_us") / 1e3, 2),
            "processor (us/request)": round(_median(found, name, "cpu_us")),
            "ready (s)": round(ready[name], 1) if name in ready else "",
            "not answered": int(sum(one[name]["failed"] for one in found)),
            "version": versions.get(name, ""),
        }
        for name in names
    ]
    others = [name for name in TARGETS if name in names]
    ratios: list[Row] = [
        {
            "beside": name,
            "ours, synced": round(ratio(DISK, name), 2),
            "ours, process": round(ratio(PROCESS, name), 2),
            "target": f"at least {TARGETS[name]}",
        }
        for name in others
    ]
    ratios.append(
        {
            "beside": BARE_LISTS,
            "ours, synced": "",
            "ours, process": round(ratio(LISTS, BARE_LISTS), 2),
            "target": "at least 0.8",
        }
    )
    missing = [name for name in TARGETS if name not in names]
    sync_ms = statistics.median(syncs_us) / 1e3
    slow_ms = syncs_us[int(len(syncs_us) * 0.9)] / 1e3
    limit_ms = 2 * _median(found, "bare.py", "p99_us") / 1e3 + sync_ms
    absent = f"; not installed: {', '.join(missing)}" if missing else ""
    return Result(
        name="serving",
        what=f"requests a second, ours / others, wrk with {CONNECTIONS} connections, "
        f"{ENTITIES:,} entities; one fdatasync took {sync_ms:.2f} ms, one in ten more than "
        f"{slow_ms:.2f} ms{absent}",
        figure=f"bare.py {ratio(DISK, 'bare.py'):.2f} synced, {ratio(PROCESS, 'bare.py'):.2f} "
        f"process; p99 {_median(found, DISK, 'p99_us') / 1e3:.1f} ms synced, "
        f"{_median(found, PROCESS, 'p99_us') / 1e3:.1f} ms process (target {limit_ms:.1f}); "
        f"100 rows {ratio(LISTS, BARE_LISTS):.2f}; ready in {ready[PROCESS]:.1f} s",
        target="0.8 of bare.py, 2 x MLServer, 5 x BentoML, 30 x MLflow; p99 at most twice "
        "bare.py's and one fdatasync; 100 rows 0.8; ready under 3 s",
        tables={"Servers (medians)": rows, "Ratios (median of the rounds)": ratios},
    )


def _median(found: Sequence[dict[str, Figures]], name: str, figure: str) -> float:
    return statistics.median(one[name][figure] for one in found)


def load(server: Server, process: int, root: Path, seconds: int, *, pause_ms: float = 0) -> Figures:
    """Load a server for some seconds, each connection with pauses; return its figures."""
    pause = {"PAUSE_MS": str(round(pause_ms))} if pause_ms else {}
    extra = {"ENTITIES": str(ENTITIES), "MANY": str(server.rows_at_once)}
    extra |= pause
    if server.body is not None:
        extra["BODIES"] = str(_bodies(server, root))
    url = f"http://127.0.0.1:{server.port}{server.path}"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT), url]
    before = _cpu_seconds(process)
    done = subprocess.run(
        command,
        env={**os.environ, **server.extra, **extra},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "rate": said["requests"] / said["us"] * 1e6,
        "cpu_us": (_cpu_seconds(process) - before) / max(said["requests"], 1) * 1e6,
        "failed": said["not_2xx"] + said["broken"],
        **{name: said[name] for name in ("p50_us", "p99_us")},
    }


@contextmanager
def running(server: Server, root: Path) -> Iterator[tuple[int, float]]:
    """Start a server; yield its process and after how many seconds it answered."""
    begun = time.perf_counter()
    log = root / f"{server.port}.log"
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # it would compile the source at each start
    with (
        log.open("wb") as output,
        subprocess.Popen(
            server.command,
            cwd=server.folder,
            env={**environment, **server.extra, "OMP_WAIT_POLICY": "passive"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            while not _answers(server):
                if process.poll() is not None or time.perf_counter() - begun > READY_SECONDS:
                    raise RuntimeError(f"{server.name} did not start\n{log.read_text()[-2000:]}")
                time.sleep(0.02)
            yield process.pid, time.perf_counter() - begun
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def _answers(server: Server) -> bool:
    body = '{"use_case": "bench", "entity_id": 1}'
    if server.body is not None:
        body = server.body.replace("ROWS", json.dumps([[0.0] * 45]))
    headers = {"content-type": "application/json"}
    if "KEY" in server.extra:
        headers["authorization"] = f"Bearer {server.extra['KEY']}"
    url = f"http://127.0.0.1:{server.port}{server.path}"
    asking = urllib.request.Request(url, body.encode(), headers)
    try:
        with urllib.request.urlopen(asking, timeout=5) as said:
            return bool(said.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _bodies(server: Server, root: Path) -> Path:
    """Write the bodies that wrk draws from."""
    path = root / f"{server.port}-{server.rows_at_once}.txt"
    if not path.exists():
        rows = (root / "rows.jsonl").read_text(encoding="utf-8").splitlines()
        at_once = server.rows_at_once
        groups = [rows[at : at + at_once] for at in range(0, len(rows), at_once)]
        body = server.body or ""
        lines = (body.replace("ROWS", f"[{', '.join(group)}]") for group in groups)
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


def fdatasyncs_us(path: Path) -> list[float]:
    """Return how long writing over a page and one fdatasync take, 200 times."""
    path.write_bytes(b"x" * PAGE_BYTES * 200)
    took = []
    with path.open("r+b", buffering=0) as file:
        os.fsync(file.fileno())
        for _ in range(200):
            begun = time.perf_counter()
            file.write(b"y" * PAGE_BYTES)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - begun) * 1e6)
    return took


def _cpu_seconds(process: int) -> float:
    """Return the processor time of a process and its descendants, as far as they live."""
    total, members = 0, [process]
    while members:
        one = Path("/proc") / str(members.pop())
        fields = (one / "stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
        for thread in (one / "task").iterdir():
            members += [int(child) for child in (thread / "children").read_text().split()]
    return total / TICKS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each round and server")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    main(given.seconds, given.rounds)
