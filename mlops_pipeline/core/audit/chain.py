"""The audit chain: one hash for each event, over the event and the hash of the one before.

    hash = sha256(JSON of {actor, at, detail, kind, previous_hash, recorded_at, seq, use_case})

JSON is written with sorted keys, without blanks, in ASCII. `ChainCheck` shows that nobody changed
the events, `RecordCheck` that the rows which the program goes by (rollouts, approvals, exceptions)
still say what their events say. docs/security.md says what that proves and what it does not.
Anchors, which tie the chain to what lies outside the database, are in anchors.py.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_pipeline.core.audit.anchors import GENESIS, SOURCES, Anchor, canonical

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HASHED = ("actor", "at", "detail", "kind", "previous_hash", "recorded_at", "seq", "use_case")
LATER = "recorded_at"  # the one that events of older versions lack
UNKNOWN = "unknown"  # an actor who did not say who they are
RECORD = "record"  # the kind of an event that vouches for a row by its digest
Place = tuple[str, str]  # a table, and the canonical JSON of a row's key
MAX_PROBLEMS = 100  # kept; the rest is counted, so that memory stays flat


@dataclass(frozen=True)
class NewAuditEvent:
    """An event to append; `detail` is plain JSON without personal data: events are never erased."""

    kind: str
    detail: Mapping[str, Any]
    use_case: str | None
    actor: str
    at: datetime


@dataclass(frozen=True)
class AuditEvent:
    """What happened; `hash` covers every other field. Older versions have no `recorded_at`."""

    seq: int
    at: datetime
    use_case: str | None
    kind: str
    actor: str
    detail: Mapping[str, Any]
    recorded_at: datetime | None
    previous_hash: str
    hash: str


@dataclass(frozen=True)
class Problem:
    """What is wrong with the record, and with which event of it."""

    what: str
    event: "StoredEvent | None" = None

    def __str__(self) -> str:
        return self.what if self.event is None else f"{self.event.name}: {self.what}"


@dataclass(frozen=True)
class StoredEvent:
    """An event as the database holds it, whatever that is by now: nothing is taken on trust."""

    seq: int
    at_us: Any
    use_case: Any
    kind: Any
    actor: Any
    detail: Any
    recorded_at_us: Any
    previous_hash: Any
    hash: Any

    @property
    def name(self) -> str:
        """Return what a person calls the event by."""
        return f"event {self.seq} ({self.kind}, {_time(self.at_us)})"

    def document(self) -> dict[str, Any]:
        """Return every column as an export's line has it; a damaged time or detail as stored."""
        values = vars(self) | self._times() | {"detail": _detail(self.detail)}
        for name in ("at_us", "recorded_at_us", *([LATER] if values[LATER] is None else [])):
            del values[name]
        return {name: str(value) if isinstance(value, bytes) else value
                for name, value in values.items()}  # fmt: skip

    def hash_as(self, seq: int, previous_hash: str) -> str | None:
        """Return the hash that the content has in a place; None if it is not even text."""
        placed = {**self._times(), "seq": seq, "previous_hash": previous_hash}
        try:
            return event_hash(vars(self) | placed)
        except TypeError:
            return None

    def _times(self) -> dict[str, Any]:
        return {"at": _time(self.at_us), LATER: _time(self.recorded_at_us)}


class ChainCheck:
    """Reads a chain once, in flat memory, and says what is wrong; `problems` are the first 100."""

    def __init__(self, anchors: Iterable[Anchor]) -> None:
        self.count, self.head, self.anchored, self.total = 0, GENESIS, 0, 0
        self.problems: list[Problem] = []
        self._anchors: dict[int, list[Anchor]] = {}
        for item in anchors:
            self._anchors.setdefault(item.count, []).append(item)
        self._unlike: list[tuple[int, Anchor]] = []  # with the first event that it may be about
        self._altered: list[StoredEvent] = []
        self._missing: list[int] = []
        self._is_intact = True  # the event before

    def add(self, event: StoredEvent) -> None:
        """Check the next event by number."""
        expected = self.count + 1
        is_next = event.seq == expected
        if event.seq < 1:
            self.report("it is no place in the chain", event)
        elif not is_next:
            self.report(f"{_range(expected, event.seq - 1)} missing before it", event)
            room = MAX_PROBLEMS - len(self._missing)
            self._missing += range(expected, min(event.seq, expected + room))
        own = event.hash_as(event.seq, event.previous_hash)
        is_intact = own == event.hash
        if not is_intact and len(self._altered) < MAX_PROBLEMS:
            self._altered.append(event)
        elif not is_intact:
            self.report("altered: its content does not give its hash", event)
        elif is_next and self._is_intact and event.previous_hash != self.head:
            self.report(f"it does not follow event {self.count}: one of them was rewritten", event)
        first = self.anchored + 1
        for anchor in self._anchors.pop(event.seq, []):
            if anchor.head in {own, event.hash}:
                self.anchored = event.seq
            else:
                self._unlike.append((first, anchor))
        self.count, self.head, self._is_intact = max(event.seq, 0), str(event.hash), is_intact

    def finish(self) -> None:
        """Say what shows at the end only: what was moved, and what anchors say."""
        for event in self._altered:
            place = self._place_of(event)
            if place is None:
                self.report("altered: its content does not give its hash", event)
            else:
                self.report(f"out of place: it is what event {place} was", event)
        for source in SOURCES:
            unlike = [item for item in self._unlike if item[1].source == source]
            if unlike:
                first, anchor = unlike[0]
                more = f", and {len(unlike) - 1} later anchors differ" if len(unlike) > 1 else ""
                events = _range(first, anchor.count)
                self.report(f"{events} not what {anchor.place} says{more}: the chain was rewritten")
            beyond = [item for items in self._anchors.values() for item in items
                      if item.source == source and item.count > self.count]  # fmt: skip
            if beyond:
                last = max(beyond, key=lambda item: item.count)
                events = _range(self.count + 1, last.count)
                self.report(f"{events} gone, {last.place} has them: the chain was cut")

    def report(self, what: str, event: StoredEvent | None = None) -> None:
        """Add a problem."""
        self.total += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(what, event))

    def _place_of(self, event: StoredEvent) -> int | None:
        """Return the number under which the event, or its content, was hashed once."""
        for other in self._altered:
            if other.seq != event.seq:
                if event.hash_as(other.seq, event.previous_hash) == event.hash:
                    return other.seq
                if event.hash_as(other.seq, other.previous_hash) == other.hash:
                    return other.seq
        missing = (
            seq for seq in self._missing if event.hash_as(seq, event.previous_hash) == event.hash
        )
        return next(missing, None)


@dataclass(frozen=True)
class StoredRecord:
    """A stored row; `kind` is None when it cannot be read, `actor` when it does not hold it."""

    table: str
    id: int
    kind: str | None
    use_case: str | None = None
    actor: str | None = None
    at: datetime | None = None
    detail: str = ""

    def differs_from(self, event: StoredEvent) -> bool:
        """Whether the row says something else than its event."""
        return (
            (event.kind, event.use_case, event.detail) != (self.kind, self.use_case, self.detail)
            or self.at is None
            or event.at_us != (self.at - EPOCH) // MICROSECOND
            or self.actor not in (None, event.actor)
        )


class RecordCheck:
    """Reads the events of a chain once and says which rows, read before, they do not agree with."""

    def __init__(
        self,
        records: Iterable[StoredRecord],  # that have to have an event
        digests: Mapping[Place, str | None],  # of the rows whose newest event has theirs
        known: int,  # events when these were read: later ones may tell of later rows
        tables: Mapping[str, str],  # where the row of an event is, by kind
        report: Callable[[str, StoredEvent | None], None],  # what is wrong, which event says so
    ) -> None:
        self._without_event = {(record.table, record.id): record for record in records}
        self._digests, self._known, self._tables, self._report = digests, known, tables, report
        self._newest: dict[Place, tuple[str, StoredEvent]] = {}
        self._later: set[tuple[Place, str]] = set()

    def add(self, event: StoredEvent) -> None:
        """Compare an event with its row."""
        if event.kind == RECORD:
            self._keep_digest(event)
        table = self._tables.get(str(event.kind))
        row_id = None if table is None else _id(event.detail)
        if table is None or row_id is None:
            return
        record = self._without_event.pop((table, row_id), None)
        if record is None:
            if event.seq <= self._known:
                self._report(f"{table} {row_id}, of which it tells, is gone", event)
        elif record.differs_from(event):
            self._report(f"{table} {row_id} does not say what it says: the row was altered", event)

    def finish(self) -> None:
        """Say which rows no event tells of."""
        for table, row_id in self._without_event:
            self._report(f"{table} {row_id} has no event: the row was put there", None)
        for place in sorted({*self._digests, *self._newest}):
            said, event = self._newest.get(place, (None, None))
            found, name = self._digests.get(place), " ".join(place)
            if place not in self._digests:
                self._report(f"{name}, of which it tells, is gone", event)
            elif (place, found) not in self._later and found != said:
                was = "altered" if event else "put there"
                self._report(f"{name} is not what its newest event says: the row was {was}", event)

    def _keep_digest(self, event: StoredEvent) -> None:
        said = _detail(event.detail)
        if not isinstance(said, dict):
            return  # which the chain's hashes show
        place = (str(said.get("table")), canonical(said.get("key")))
        if event.seq <= self._known:
            self._newest[place] = (str(said.get("sha256")), event)
        else:
            self._later.add((place, str(said.get("sha256"))))


def row_digest(row: Mapping[str, Any]) -> str | None:
    """Return the sha256 of a row as it is stored; None for what the program cannot have stored."""
    try:
        return hashlib.sha256(canonical(row).encode()).hexdigest()
    except (TypeError, ValueError):
        return None


def event_hash(event: Mapping[str, Any]) -> str:
    """Return the hash of an event's canonical JSON; TypeError for what has no place in JSON."""
    parts = (
        f'"{name}":{event[name] if name == "detail" else canonical(event[name])}'
        for name in HASHED
        if name != LATER or event[name] is not None
    )
    return hashlib.sha256(f"{{{','.join(parts)}}}".encode()).hexdigest()


def time_text(at: datetime) -> str:
    """Write a time as it is hashed: ISO 8601 in UTC with six digits of a second."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _time(at_us: Any) -> Any:
    try:
        return time_text(EPOCH + at_us * MICROSECOND)
    except (TypeError, OverflowError):
        return at_us


def _detail(text: Any) -> Any:
    """Return the document; or the text, which gives another hash, when it is not canonical."""
    try:
        document = json.loads(text)
        return document if canonical(document) == text else text
    except (TypeError, ValueError):
        return text


def _range(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


def _id(detail: Any) -> int | None:
    """Return the id in a detail; None when it cannot be read, which the chain's hashes show."""
    try:
        document = json.loads(detail)
    except (TypeError, ValueError):
        return None
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, int) else None
