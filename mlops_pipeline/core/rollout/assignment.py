"""Which entities a new version decides about: sticky, monotone, the same in every language.

    bucket = the first 8 bytes of SHA-256("<salt>:<entity>"), big-endian, modulo 10,000
    the new version decides where bucket < 10,000 x share

The salt is the version's fingerprint, so each rollout draws anew. Whoever is in at 5 % stays in at
25 %. docs/rollout.md has test vectors.
"""

import hashlib
from collections.abc import Collection

BUCKETS = 10_000  # shares are exact to 0.01 %


def bucket(salt: str, entity: str) -> int:
    """Return the bucket of an entity, 0 to 9,999."""
    digest = hashlib.sha256(f"{salt}:{entity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


def is_canary(salt: str, entity: str, share: float, test_entities: Collection[str] = ()) -> bool:
    """Whether the new version decides about an entity; always about one of `test_entities`.

    Who is not known by an id (`entity` is empty) is the champion's.
    """
    if not entity:
        return False
    return entity in test_entities or bucket(salt, entity) < round(share * BUCKETS)
