"""A Redis server that is gone, slow, full or damaged: a typed error within the time limit."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from mlops_pipeline.errors import (
    ConfigError,
    OnlineCorruptError,
    OnlineFullError,
    OnlineTimeoutError,
    OnlineUnavailableError,
)
from mlops_pipeline.stores.online import redis_server
from mlops_pipeline.stores.online.interface import (
    OnlineStore,
    OnlineTable,
    StoredRecord,
    open_online_store,
)
from mlops_pipeline_tests.stores.online.records import SCHEMA, at, days, event, record
from mlops_pipeline_tests.stores.online.servers import SlowProxy, free_port, own_redis
from mlops_pipeline_tests.stores.online.time_limit import LIMIT_MS, ends_in_time

LITTLE_MEMORY = ("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
Call = Callable[[OnlineStore, OnlineTable], object]
RAW = StoredRecord("1", at(1), None, b"bytes")
CALLS: dict[str, Call] = {
    "read_records": lambda store, table: store.read_records(table, ["1"], now_us=at(1)),
    "read_events": lambda store, table: store.read_events(table, ["1"], since_us=at(1)),
    "write_records": lambda store, table: store.write_records(table, [RAW], now_us=at(1)),
    "append_events": lambda store, table: store.append_events(
        table, [event("1", "a", 1)], keep_after_us=at(0)
    ),
    "checkpoint": lambda store, table: store.checkpoint(table),
    "set_checkpoint": lambda store, table: store.set_checkpoint(table, "x"),
    "purge": lambda store, table: store.purge(table, now_us=at(1)),
    "forget": lambda store, table: store.forget(table.use_case, "1"),
    "drop": lambda store, table: store.drop(table),
}


@pytest.fixture(params=sorted(CALLS))
def call(request: pytest.FixtureRequest) -> Call:
    return CALLS[request.param]


@pytest.fixture
def proxy(redis_url: str) -> Iterator[SlowProxy]:
    parts = urlsplit(redis_url)
    made = SlowProxy(parts.hostname or "", parts.port or 6379)
    yield made
    made.close()


@pytest.fixture
def slow_store(redis_url: str, proxy: SlowProxy) -> Iterator[OnlineStore]:
    url = f"redis://127.0.0.1:{proxy.port}{urlsplit(redis_url).path}"
    with open_online_store(url, timeout_ms=LIMIT_MS) as opened:
        yield opened


@pytest.fixture
def patient_store(redis_url: str, proxy: SlowProxy) -> Iterator[OnlineStore]:
    """Also through the proxy, for calls that have to succeed on a busy machine."""
    url = f"redis://127.0.0.1:{proxy.port}{urlsplit(redis_url).path}"
    with open_online_store(url, timeout_ms=10 * LIMIT_MS) as opened:
        yield opened


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def append_large_events(store: OnlineStore, table: OnlineTable) -> None:
    for number in range(5_000):
        one = event("1", str(number), 1)._replace(payload=bytes(1_000))
        store.append_events(table, [one], keep_after_us=at(0))


def test_redis_nothing_listens_is_unavailable(table: OnlineTable, call: Call) -> None:
    url = f"redis://user:secret@127.0.0.1:{free_port()}/0"
    with (
        open_online_store(url, timeout_ms=LIMIT_MS) as store,
        ends_in_time(),
        pytest.raises(OnlineUnavailableError, match=r"where: redis://127") as caught,
    ):
        call(store, table)
    assert "secret" not in str(caught.value)


def test_redis_stalled_is_a_timeout(
    slow_store: OnlineStore, proxy: SlowProxy, table: OnlineTable, call: Call
) -> None:
    proxy.stall()
    with ends_in_time(), pytest.raises(OnlineTimeoutError, match="within 100 ms"):
        call(slow_store, table)


def test_redis_a_byte_now_and_then_is_a_timeout(
    patient_store: OnlineStore, slow_store: OnlineStore, proxy: SlowProxy, table: OnlineTable
) -> None:
    patient_store.write_records(table, [RAW], now_us=at(1))
    proxy.drip(LIMIT_MS / 1000 / 3)  # each byte is in time, the answer would take seconds
    for _ in range(2):  # the second on a new connection
        with ends_in_time(), pytest.raises(OnlineTimeoutError):
            slow_store.read_records(table, ["1"], now_us=at(1))


def test_redis_late_answer_is_never_taken_for_another(
    patient_store: OnlineStore, proxy: SlowProxy, table: OnlineTable
) -> None:
    records = [record("1", 1), record("2", 2)]
    patient_store.write_records(table, records, now_us=at(1))
    proxy.stall()
    with pytest.raises(OnlineTimeoutError):
        patient_store.read_records(table, ["1"], now_us=at(1))
    proxy.recover()
    assert days(patient_store.read_records(table, ["2"], now_us=at(1))) == [2]


def test_redis_connection_closed_is_unavailable(
    patient_store: OnlineStore, proxy: SlowProxy, table: OnlineTable
) -> None:
    assert patient_store.read_records(table, ["1"], now_us=at(1)) == [None]
    proxy.close()
    with ends_in_time(), pytest.raises(OnlineUnavailableError):
        patient_store.read_records(table, ["1"], now_us=at(1))


def test_redis_gone_and_back_needs_no_new_store(tmp_path: Path, table: OnlineTable) -> None:
    port = free_port()
    with open_online_store(f"redis://127.0.0.1:{port}/0", timeout_ms=5_000) as store:
        with own_redis(tmp_path, port):
            store.write_records(table, [record("1", 1)], now_us=at(1))
        with pytest.raises(OnlineUnavailableError):
            store.read_records(table, ["1"], now_us=at(1))
        with own_redis(tmp_path, port):  # it kept nothing, the scripts neither
            assert store.read_records(table, ["1"], now_us=at(1)) == [None]
            assert store.write_records(table, [record("1", 1)], now_us=at(1)) == 1


def test_redis_back_while_nobody_called_is_read_at_once(
    tmp_path: Path, table: OnlineTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "IDLE_SECONDS", 0.0)
    port = free_port()
    with open_online_store(f"redis://127.0.0.1:{port}/0", timeout_ms=5_000) as store:
        with own_redis(tmp_path, port):
            store.write_records(table, [record("1", 1)], now_us=at(1))
        with own_redis(tmp_path, port):
            assert store.read_records(table, ["1"], now_us=at(1)) == [None]


def test_redis_is_read_where_an_event_loop_runs(redis_url: str, table: OnlineTable) -> None:
    async def read() -> list[float | None]:
        with open_online_store(redis_url, timeout_ms=5_000) as store:
            store.write_records(table, [record("1", 1)], now_us=at(1))
            return days(store.read_records(table, ["1"], now_us=at(1)))

    assert asyncio.run(read()) == [1]


def test_redis_full_is_an_error_and_what_is_held_is_still_read(
    tmp_path: Path, table: OnlineTable
) -> None:
    port = free_port()
    with (
        own_redis(tmp_path, port, *LITTLE_MEMORY),
        open_online_store(f"redis://127.0.0.1:{port}/0", timeout_ms=5_000) as store,
    ):
        store.write_records(table, [record("1", 1)], now_us=at(1), checkpoint="1")
        large = [StoredRecord(f"x{number}", 0, None, bytes(1_000)) for number in range(5_000)]
        with pytest.raises(OnlineFullError, match="maxmemory"):
            store.write_records(table, large, now_us=at(1), checkpoint="2")
        with pytest.raises(OnlineFullError):
            append_large_events(store, table)
        assert days(store.read_records(table, ["1"], now_us=at(1))) == [1]
        assert store.checkpoint(table) == "1"
        store.drop(table)  # room again
        assert store.write_records(table, [record("1", 1)], now_us=at(1)) == 1


def test_redis_record_with_any_byte_changed_is_refused_and_can_be_replaced(
    redis_url: str, client: Any, table: OnlineTable
) -> None:
    key = f"mlops:{table.use_case}:{table.name}:record:1"
    with open_online_store(redis_url, timeout_ms=5_000) as store:
        store.write_records(table, [record("1", 1, expires=5)], now_us=at(1))
        whole: bytes = client.get(key)
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 0x80
            client.set(key, bytes(damaged))
            (found,) = store.read_records(table, ["1"], now_us=at(1))
            assert found is not None
            with pytest.raises(OnlineCorruptError):
                SCHEMA.decode(found)
            assert store.write_records(table, [record("1", 1)], now_us=at(1)) == 1
        client.set(key, b"")
        assert store.read_records(table, ["1"], now_us=at(1)) == [b""]
        assert store.purge(table, now_us=at(99)) == 0


def test_redis_event_with_a_byte_changed_is_refused(
    redis_url: str, client: Any, table: OnlineTable
) -> None:
    key = f"mlops:{table.use_case}:{table.name}:events:1"
    with open_online_store(redis_url, timeout_ms=5_000) as store:
        store.append_events(table, [event("1", "a", 1)], keep_after_us=at(0))
        (member,) = client.zrange(key, 0, -1)
        client.delete(key)
        client.zadd(key, {member[:-1] + b"?": at(1)})
        with pytest.raises(OnlineCorruptError, match="stored event"):
            store.read_events(table, ["1"], since_us=at(0))


def test_redis_key_of_another_kind_is_corrupt(
    redis_url: str, client: Any, table: OnlineTable
) -> None:
    client.rpush(f"mlops:{table.use_case}:{table.name}:record:1", "a list")
    with (
        open_online_store(redis_url, timeout_ms=5_000) as store,
        pytest.raises(OnlineCorruptError, match="WRONGTYPE"),
    ):
        store.write_records(table, [record("1", 1)], now_us=at(1))


def test_redis_keys_go_by_themselves_when_their_content_has_expired(
    redis_url: str, client: Any, table: OnlineTable
) -> None:
    prefix = f"mlops:{table.use_case}:{table.name}"
    with open_online_store(redis_url, timeout_ms=5_000) as store:
        written = [record("1", 0, expires=3), record("2", 0)]
        store.write_records(table, written, now_us=at(1))
        store.append_events(table, [event("1", "a", 8), event("1", "b", 5)], keep_after_us=at(2))
    hours = {
        key: client.pttl(f"{prefix}:{key}") / 3_600_000
        for key in ("record:1", "record:2", "events:1", "known:1")
    }
    # an hour more than what was left: two days of the record, six of the newest event
    assert hours["record:1"] == pytest.approx(49, abs=0.1)
    assert hours["record:2"] < 0
    assert hours["events:1"] == pytest.approx(145, abs=0.1)
    assert hours["known:1"] == pytest.approx(145, abs=0.1)


TLS_LIMIT_MS = 1_000  # a handshake on a busy machine has to fit in


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 for itself, and its key."""
    binary = shutil.which("openssl")
    if binary is None:
        pytest.skip("openssl is not installed")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([binary, "req", *options, *files], check=True, capture_output=True)
    return tmp_path / "cert.pem"


def test_redis_over_tls_is_read_within_the_limit(certificate: Path, tmp_path: Path) -> None:
    port = free_port()
    key = str(certificate.with_name("key.pem"))
    settings = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    settings += ["--tls-cert-file", str(certificate), "--tls-key-file", key]
    with own_redis(tmp_path, 0, *settings):
        proxy = SlowProxy("127.0.0.1", port)
        url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate}"
        with open_online_store(url, timeout_ms=TLS_LIMIT_MS) as store:
            table = OnlineTable("shop", "t")
            store.write_records(table, [RAW], now_us=at(1))
            assert store.read_records(table, ["1"], now_us=at(1)) == [b"bytes"]
            proxy.drip(TLS_LIMIT_MS / 1000 / 10)  # an answer has more than ten bytes
            with pytest.raises(OnlineTimeoutError), ends_in_time(TLS_LIMIT_MS):
                store.read_records(table, ["1"], now_us=at(1))
            with pytest.raises(OnlineTimeoutError), ends_in_time(TLS_LIMIT_MS):  # the greeting
                store.read_records(table, ["1"], now_us=at(1))
            proxy.recover()
        stranger = f"rediss://127.0.0.1:{proxy.port}/0"  # nobody vouches for the certificate
        with (
            open_online_store(stranger, timeout_ms=TLS_LIMIT_MS) as store,
            pytest.raises(OnlineUnavailableError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            store.read_records(table, ["1"], now_us=at(1))
        proxy.close()


def test_redis_over_tls_sends_nothing_in_the_clear() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"rediss://user:sekret@127.0.0.1:{listener.getsockname()[1]}/0"
        with (
            open_online_store(url, timeout_ms=LIMIT_MS) as store,
            pytest.raises((OnlineTimeoutError, OnlineUnavailableError)),
        ):
            store.checkpoint(OnlineTable("shop", "t"))
        with closing(listener.accept()[0]) as accepted:
            received = accepted.recv(1_024)
    assert received[0] == 0x16  # a TLS handshake
    assert b"sekret" not in received


def test_redis_certificate_that_cannot_be_read_is_an_error_of_the_address(tmp_path: Path) -> None:
    url = f"rediss://127.0.0.1:{free_port()}/0?ssl_ca_certs={tmp_path / 'none.pem'}"
    with pytest.raises(ConfigError, match="certificate"):
        open_online_store(url, timeout_ms=LIMIT_MS)
