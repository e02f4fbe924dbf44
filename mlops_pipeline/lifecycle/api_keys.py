"""Keys of the prediction service: made, rotated, revoked, and known to a serving process.

A key is 32 random bytes. Only its SHA-256 is stored, which nobody turns back into so much chance.
Rows are never changed: the end of a key is a row of its own, so the audit chain has them all.
"""

import hashlib
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from mlops_pipeline.core.rollout.approvals import person_name
from mlops_pipeline.errors import ConfigError, NotFoundError, StateError
from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.ops import NEW, ApiKeyEntry, KeyScope, Ledger, OpsDatabase, Transaction
from mlops_pipeline.stores.settings import Settings

PREFIX = "mlops_"  # so that scanners for secrets know one
SCOPES: tuple[str, ...] = get_args(KeyScope)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LEDGER = "api_keys"  # the scope of its writers


@dataclass(frozen=True)
class ApiKey:
    """A key as it stands; from `expires_at` on it is refused, for good where it is `revoked`."""

    id: int
    name: str
    scopes: tuple[str, ...]
    digest: str
    by: str
    created_at: datetime
    expires_at: datetime
    revoked_by: str | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether it opens anything now."""
        return now < self.expires_at

    def allows(self, scope: str) -> bool:
        """Whether it opens this; `admin` opens everything."""
        return scope in self.scopes or "admin" in self.scopes


def list_keys(ops: Ledger) -> list[ApiKey]:
    """List every key in the order they were made, also those that ended."""
    return _keys(ops.all(ApiKeyEntry))


def create_key(
    ops: Ledger, name: str, scopes: Collection[str], *, by: str, expires_at: datetime, now: datetime
) -> str:
    """Make the key of a new name; return it: nobody can read it again."""
    _check(name, scopes, expires_at, now)
    with ops.write(LEDGER) as tx:
        if any(key.name == name and key.is_valid(now) for key in list_keys(tx)):
            raise StateError(
                f"there is a key {name!r} already",
                way_out=f"mlops keys rotate {name}, or another name",
            )
        return _insert(tx, name, tuple(scopes), by=by, expires_at=expires_at, now=now)


def rotate_key(
    ops: Ledger, name: str, *, by: str, ends_at: datetime, expires_at: datetime, now: datetime
) -> str:
    """Make another key of a name; the ones before it open the same until `ends_at`."""
    with ops.write(LEDGER) as tx:
        valid = _valid(tx, name, now)
        scopes = valid[-1].scopes
        _check(name, scopes, expires_at, now)
        _end(tx, valid, by=by, ends_at=max(ends_at, now), now=now)
        return _insert(tx, name, scopes, by=by, expires_at=expires_at, now=now)


def revoke_key(ops: Ledger, name: str, *, by: str, now: datetime) -> int:
    """End every key of a name at once; return how many there were."""
    with ops.write(LEDGER) as tx:
        valid = _valid(tx, name, now)
        _end(tx, valid, by=by, ends_at=now, now=now)
    return len(valid)


class KeyRing(Closing):
    """The keys in memory, as the ledger has them; while it is away, as it had them last."""

    def __init__(self, settings: Settings) -> None:
        self._ops = OpsDatabase.open(settings.database_url)
        self._keys: dict[str, ApiKey] = {}
        self.refresh()
        self._follower = Repeating(self.refresh, "keys are not followed; those known count on")

    def find(self, key: str, now: datetime) -> ApiKey | None:
        """Return the key that a caller shows; None when there is none, or it ended."""
        found = self._keys.get(_digest(key))
        return found if found is not None and found.is_valid(now) else None

    def refresh(self) -> None:
        """Take over what the ledger says."""
        self._keys = {key.digest: key for key in list_keys(self._ops)}

    def close(self) -> None:
        """Stop following."""
        self._follower.close()
        self._ops.close()


def _keys(entries: Iterable[ApiKeyEntry]) -> list[ApiKey]:
    found: dict[int, ApiKey] = {}
    for row in entries:
        if row.ends is None:
            found[row.id] = ApiKey(
                row.id, row.name, row.scopes, str(row.digest), row.by, row.at, row.expires_at
            )
        else:
            key = found[row.ends]
            end = min(key.expires_at, row.expires_at)
            found[row.ends] = ApiKey(**{**vars(key), "expires_at": end, "revoked_by": row.by})
    return list(found.values())


def _valid(ops: Ledger, name: str, now: datetime) -> list[ApiKey]:
    known = [key for key in list_keys(ops) if key.is_valid(now)]
    found = [key for key in known if key.name == name]
    if not found:
        names = dict.fromkeys(key.name for key in known)
        raise NotFoundError.of("key", name, names, way_out="mlops keys list")
    return found


def _insert(
    tx: Transaction,
    name: str,
    scopes: tuple[str, ...],
    *,
    by: str,
    expires_at: datetime,
    now: datetime,
) -> str:
    key = PREFIX + secrets.token_urlsafe(32)
    tx.insert(
        ApiKeyEntry(NEW, name, scopes, _digest(key), person_name(by), now, expires_at, ends=None)
    )
    return key


def _end(
    tx: Transaction, keys: Iterable[ApiKey], *, by: str, ends_at: datetime, now: datetime
) -> None:
    for key in keys:
        tx.insert(ApiKeyEntry(NEW, key.name, (), None, person_name(by), now, ends_at, key.id))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _check(name: str, scopes: Collection[str], expires_at: datetime, now: datetime) -> None:
    if NAME.fullmatch(name) is None:
        raise ConfigError(
            "the name of a key is not valid",
            expected="1 to 64 letters, digits, dots, dashes and underscores",
            found=repr(name),
        )
    for scope in scopes:
        if scope not in SCOPES:
            raise NotFoundError.of("scope", scope, SCOPES, where="scopes")
    if not scopes:
        raise ConfigError("a key has one scope or more", expected=f"some of {', '.join(SCOPES)}")
    if expires_at <= now:
        raise ConfigError(
            "a key ends in the future",
            expected=f"after {now.isoformat()}",
            found=expires_at.isoformat(),
        )
