"""Talking to a Redis server: one time limit for a whole exchange, typed errors, no second try.

A client's own limits are for each piece that arrives: a server that sends a byte now and then would
hold a reader for ever. So hiredis reads and writes the protocol, and what waits is here. Belongs
here: what does not depend on what is stored.
"""

import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping, Sequence
from select import select
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from mlops_pipeline import errors
from mlops_pipeline.stores import Closing

PORT = 6379
IDLE_SECONDS = 1.0  # after which the server may have hung up
PIECE_BYTES = 65_536  # read at once
PACK: Any = hiredis.pack_command  # Any: it is declared for one argument
Command = tuple[str | bytes | int, ...]
Failure = tuple[type[errors.OnlineStoreError], str, str]
UNAVAILABLE: Failure = (
    errors.OnlineUnavailableError,
    "the online store is not available",
    "see that the server runs and MLOPS_ONLINE_URL names it",
)
FAILURES: Mapping[str, Failure] = {  # by the first word of the server's error
    "OOM": (
        errors.OnlineFullError,
        "the online store is full",
        "give the server more memory, or drop tables that nothing reads",
    ),
    "WRONGTYPE": (
        errors.OnlineCorruptError,
        "a key of the online store holds something else",
        "give the store a database of its own",
    ),
}


class Address(NamedTuple):
    """Where a server is, and how it is greeted."""

    shown: str
    host: str
    port: int
    greeting: Sequence[Command]
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str) -> Self:
        """Read an address such as redis://user:password@host:port/db; rediss:// speaks TLS."""
        parts, database = urlsplit(url), urlsplit(url).path.removeprefix("/")
        host, port = parts.hostname or "", parts.port or PORT
        greeting: list[Command] = []
        if parts.password is not None:
            names = [unquote(parts.username)] if parts.username else []
            greeting.append(("AUTH", *names, unquote(parts.password)))
        if database not in ("", "0"):
            greeting.append(("SELECT", database))
        tls = None
        if parts.scheme == "rediss":
            tls = _tls({name: values[0] for name, values in parse_qs(parts.query).items()})
        return cls(f"{parts.scheme}://{host}:{port}{parts.path}", host, port, greeting, tls)


class RedisServer:
    """Exchanges commands with a server within a time limit; a connection for each caller."""

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._address = Address.of(url)
        self._idle = deque[_Line]()

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one exchange and return their answers."""
        line, deadline = self._line(), time.monotonic() + self._timeout_ms / 1000
        try:
            if line is None:
                line = _Line(self._address, deadline)
            answers = line.exchange(commands, deadline)
        except BaseException as error:
            if line is not None:
                line.close()  # a late answer would be taken for that of the next call
            if isinstance(error, (OSError, hiredis.ProtocolError, hiredis.ReplyError)):
                raise self._failure(error) from error
            raise
        self._idle.append(line)
        for answer in answers:
            for item in answer if isinstance(answer, list) else [answer]:
                if isinstance(item, hiredis.ReplyError):
                    raise self._failure(item) from item
        return answers

    def close(self) -> None:
        """Close every connection that nobody uses now."""
        while self._idle:
            self._idle.pop().close()

    def _line(self) -> "_Line | None":
        """Return a connection that nobody uses, and that the server has not ended meanwhile."""
        while self._idle:
            try:
                line = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if not line.has_ended():
                return line
            line.close()
        return None

    def _failure(self, error: Exception) -> errors.OnlineStoreError:
        found, where = str(error) or type(error).__name__, self._address.shown
        if isinstance(error, TimeoutError):
            within = f"an answer within {self._timeout_ms} ms"
            what = "the online store did not answer in time"
            return errors.OnlineTimeoutError(what, where=where, expected=within, found=found)
        code = found.partition(" ")[0] if isinstance(error, hiredis.ReplyError) else ""
        kind, what, way_out = FAILURES.get(code, UNAVAILABLE)
        return kind(what, where=where, found=found, way_out=way_out)


class _Line:
    """A connection, lent to one call at a time."""

    def __init__(self, address: Address, deadline: float) -> None:
        self._replies = hiredis.Reader()
        self._used_at = time.monotonic()
        self._socket = socket.create_connection((address.host, address.port), _left(deadline))
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls is not None:
                self._socket.settimeout(_left(deadline))  # Python holds it for the whole handshake
                self._socket = address.tls.wrap_socket(self._socket, server_hostname=address.host)
            for answer in self.exchange(address.greeting, deadline):
                if isinstance(answer, hiredis.ReplyError):
                    raise answer
        except BaseException:
            self.close()
            raise

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Send commands and return their answers, errors among them; OSError, ProtocolError."""
        self._used_at = time.monotonic()
        if not commands:
            return []
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(b"".join(map(PACK, commands)))
        answers: list[Any] = []
        while len(answers) < len(commands):
            answer = self._replies.gets()
            if answer is not False:  # what Reader says while an answer is not complete
                answers.append(answer)
                continue
            self._socket.settimeout(_left(deadline))
            piece = self._socket.recv(PIECE_BYTES)
            if not piece:
                raise ConnectionError("the server ended the connection")
            self._replies.feed(piece)
        return answers

    def has_ended(self) -> bool:
        """Whether the server hung up, or sent what nobody asked for, while nobody called."""
        if time.monotonic() - self._used_at < IDLE_SECONDS:
            return False
        return bool(select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def _tls(files: Mapping[str, str]) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=files.get("ssl_ca_certs"))
        if "ssl_certfile" in files:
            tls.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    except OSError as error:
        raise errors.ConfigError(
            "A certificate of the online store cannot be read.",
            where="MLOPS_ONLINE_URL",
            expected="ssl_ca_certs, ssl_certfile and ssl_keyfile that name PEM files",
            found=str(error),
        ) from error
    return tls


def _left(deadline: float) -> float:
    """Return the seconds until a deadline; TimeoutError when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


# requests that all processes of a service answered to each client: a token bucket for each, by the
# server's own clock, so that nobody's clock has to be right

RATES = "mlops-rates:"
RATES_TIMEOUT_MS = 1_000  # nobody waits for it
SETTLE = """
local time = redis.call('TIME')
local now, capacity = time[1] + time[2] / 1e6, tonumber(ARGV[1])
local left = {}
for place, key in ipairs(KEYS) do
  local found = redis.call('HMGET', key, 'tokens', 'at')
  local tokens, at = tonumber(found[1]) or capacity, tonumber(found[2]) or now
  tokens = math.min(capacity, tokens + math.max(0, now - at) * capacity / 60) - ARGV[place + 1]
  redis.call('HSET', key, 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', key, 120)
  left[place] = tostring(tokens)
end
return left
"""


class SharedRates(Closing):
    """The buckets of all processes."""

    def __init__(self, url: str) -> None:
        self._server = RedisServer(url, timeout_ms=RATES_TIMEOUT_MS)

    def exchange(self, taken: Mapping[str, int], per_minute: int) -> dict[str, float]:
        """Take what was taken here out of the buckets; return what is left in each."""
        keys = [RATES + client for client in taken]
        command: Command = ("EVAL", SETTLE, len(keys), *keys, per_minute, *taken.values())
        (left,) = self._server.send([command])
        return {client: float(tokens) for client, tokens in zip(taken, left, strict=True)}

    def close(self) -> None:
        """Hang up."""
        self._server.close()
