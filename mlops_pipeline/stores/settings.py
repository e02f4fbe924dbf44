"""Where state lives, and the key of pseudonyms, which lies there too.

Settings are read from the environment when a process starts work, never at import. A pseudonym is a
keyed hash of an entity key, so that small numbers cannot be guessed back. Its key is random, made
once per data folder: nothing links two folders.
"""

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.errors import ConfigError, visible, without_secrets
from mlops_pipeline.stores.clock import MovingClock, machine_now, read_clock
from mlops_pipeline.stores.files import first_file

ONLINE_TIMEOUT_MS = 50  # a hundred times what a read takes; a prediction still has time left
FIRST_YEAR, LAST_YEAR = 1970, 2200  # of the Clock: times are kept as nanoseconds, up to 2262
CONTRACT_TIMEOUT_S = 180  # importing MLflow takes 10 s of an idle machine
RATE_LIMIT = 1_000  # requests a minute of one key
REQUEST_TIMEOUT_S = 5
KEY_FILE = "pseudonym.key"
KEY_BYTES = 32
LENGTH = 16  # hex digits of a pseudonym: 64 bits, no collision among any realistic number
PACKAGE_PARENT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """Addresses and limits of one process."""

    root: Path
    data_dir: Path
    lake_uri: str
    database_url: str
    predictions_url: str
    online_url: str
    online_timeout_ms: int
    mlflow_uri: str
    mlflow_ui: str
    contract_timeout_s: int
    rate_limit: int
    request_timeout_s: int
    threads: int
    memory_limit: str
    fixed_now: datetime | None
    git_commit: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from environment variables."""
        given = os.environ if environment is None else environment
        root = project_root()
        data = Path(given.get("MLOPS_DATA_DIR") or root / "data").absolute()
        return cls(
            root=root,
            data_dir=data,
            lake_uri=given.get("MLOPS_LAKE_URI") or str(data / "lake"),
            database_url=given.get("MLOPS_DATABASE_URL") or f"sqlite:///{data / 'ops.db'}",
            predictions_url=given.get("MLOPS_PREDICTIONS_URL")
            or f"sqlite:///{data / 'predictions.db'}",
            online_url=given.get("MLOPS_ONLINE_URL") or f"sqlite:///{data / 'online.db'}",
            online_timeout_ms=_positive(given, "MLOPS_ONLINE_TIMEOUT_MS", ONLINE_TIMEOUT_MS),
            mlflow_uri=given.get("MLOPS_MLFLOW_URI")
            or f"sqlite:///{data / 'mlflow' / 'mlflow.db'}",
            mlflow_ui=(given.get("MLOPS_MLFLOW_UI") or "http://127.0.0.1:5000").rstrip("/"),
            contract_timeout_s=_positive(given, "MLOPS_CONTRACT_TIMEOUT_S", CONTRACT_TIMEOUT_S),
            rate_limit=_positive(given, "MLOPS_RATE_LIMIT", RATE_LIMIT),
            request_timeout_s=_positive(given, "MLOPS_REQUEST_TIMEOUT_S", REQUEST_TIMEOUT_S),
            threads=_positive(given, "MLOPS_THREADS", os.cpu_count() or 1),
            memory_limit=given.get("MLOPS_MEMORY_LIMIT") or "3GB",
            fixed_now=_fixed_now(given),
            git_commit=given.get("MLOPS_GIT_COMMIT") or None,
        )

    def now(self) -> datetime:
        """Return the Clock's time (UTC, aware): MLOPS_NOW when set, else clock.py's."""
        if self.fixed_now is not None:
            return self.fixed_now
        clock, now = self.moving_clock(), machine_now()
        return now if clock is None else clock.at(now)

    def moving_clock(self) -> MovingClock | None:
        """Return the Clock that `mlops clock` moves; None: it is fixed, or the system's."""
        return None if self.fixed_now else read_clock(self.data_dir)


def project_root() -> Path:
    """Return the folder that holds configs/: the working directory, else the checkout."""
    here = Path.cwd()
    return here if (here / "configs").is_dir() else PACKAGE_PARENT


def parse_time(text: str) -> datetime:
    """Parse an ISO date or time; without a zone it is UTC."""
    try:
        value = datetime.fromisoformat(text)
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            "not a date or time", expected="for example 2025-01-01", found=repr(text)
        ) from error


def keep_private() -> None:
    """Let what this process and its children make be read by its owner only, and mask its log."""
    os.umask(0o077)
    logging.setLogRecordFactory(_redacted_record)


def _redacted_record(*given: Any, **named: Any) -> logging.LogRecord:
    """Return a record of the log without secrets and commands to terminals, its traceback too."""
    record = logging.LogRecord(*given, **named)
    text = record.getMessage()
    shown = visible(without_secrets(text))
    if shown != text:
        record.msg, record.args = shown, ()
    if record.exc_info:
        traceback = logging.Formatter().formatException(record.exc_info)
        record.exc_text = visible(without_secrets(traceback))
    return record


def _fixed_now(given: Mapping[str, str]) -> datetime | None:
    if not given.get("MLOPS_NOW"):
        return None
    now = parse_time(given["MLOPS_NOW"])
    if not FIRST_YEAR <= now.year <= LAST_YEAR:
        years = f"a year from {FIRST_YEAR} to {LAST_YEAR}"
        raise ConfigError(
            "not a time of the Clock", where="MLOPS_NOW", expected=years, found=given["MLOPS_NOW"]
        )
    return now


def _positive(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise ConfigError("not a positive whole number", where=name, found=repr(text))
    return int(text)


def pseudonymiser(settings: Settings) -> Callable[[object], str]:
    """Return the function from an entity key to its pseudonym."""
    secret = _key(settings.data_dir / KEY_FILE)

    def pseudonym(value: object) -> str:
        return hmac.new(secret, str(value).encode(), hashlib.sha256).hexdigest()[:LENGTH]

    return pseudonym


def pads(settings: Settings) -> tuple[bytes, bytes]:
    """Return the inner and the outer pad of the key: HMAC is H(outer + H(inner + text)) (RFC 2104).

    With them SQL, which knows SHA-256 only, computes the pseudonyms of a whole column.
    """
    block = _key(settings.data_dir / KEY_FILE).ljust(64, b"\0")
    inner, outer = (bytes(byte ^ mask for byte in block) for mask in (0x36, 0x5C))
    return inner, outer


def _key(path: Path) -> bytes:
    """Read the key; the first process to come makes it, whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with first_file(path) as work:
            opened = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(opened, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
    return path.read_bytes()
