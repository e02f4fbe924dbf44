"""Pseudonyms for entity keys: a keyed hash, so that small numbers cannot be guessed back.

The key is random, made once per data folder and readable by its owner only. Equal keys get equal
pseudonyms within one data folder, and nothing links two folders.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from mlops_pipeline.stores.settings import Settings

KEY_FILE = "pseudonym.key"
KEY_BYTES = 32
LENGTH = 16  # hex digits: 64 bits, no collision among any realistic number of entities


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
        work = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(work, path)  # fails when another process was first: its key counts
        except FileExistsError:
            pass
        finally:
            work.unlink()
    return path.read_bytes()
