"""Every error that this package raises on purpose.

MlopsError
 +-- ConfigError           a configuration file or setting is wrong
 +-- ExpressionError       a scalar expression does not parse or does not fit its columns
 +-- DataError             the data cannot be used as they are
 |    +-- SourceError      a source file is missing, unreadable or breaks its schema
 |    +-- ValidationError  too much of a source failed its rules; nothing was accepted
 |    +-- SplitError       a part of the train/validation/test split is empty or has one class
 +-- NotFoundError         something was asked for by name that does not exist
 +-- MachineError          the machine does not do it: no room, no such path, no permission
 +-- LeaseError            another lifecycle of the same use case is running
 +-- StateError            the ops database or registry does not allow this step now
 +-- ContractError         a stored model does not reload and score as it did when it was made
 |    +-- ModelFilesError  a model's files are not those that were recorded
 +-- PredictionLogError    the log of predictions cannot be written or read
 +-- RequestConflictError  an id of a request came again with another body
 +-- ReviewedError         a person decided about an answer before, in another way
 +-- OnlineStoreError      the online feature store did not do what it was asked
      +-- OnlineUnavailableError  it is gone, or refuses
      +-- OnlineTimeoutError      it did not answer within its time limit
      +-- OnlineFullError         it has no room for what was written
      +-- OnlineCorruptError      what it holds is damaged
      +-- OnlineDefinitionError   what it holds is of other feature definitions

Belongs here: the tree, how a message is built, and what of a value it may show. Translation to exit
codes belongs to cli/, to HTTP status codes to serving/.
"""

import difflib
import re
from collections.abc import Iterable

SHOWN_NAMES = 8  # of many that exist, in a message about one that does not
# what libraries quote, from the first mark of a line to the last: a value may hold marks itself
_QUOTED = re.compile(r"'.*'|\".*\"|`.*`|\d{3,}(?:[.,]\d+)*")

_PASSWORD = re.compile(r"(://[^\s/?#:@]*):\S*@")  # up to the last @: a raw / or # may be in it
_SECRET = re.compile(  # a parameter of an address, a word of a connection, a member of JSON
    r"""([?&][^=&\s]*pass[^=&\s]*=|[\w-]*(?:passw|passphrase|pwd|secret|token|api_?key|credential)"""
    r"""[\w-]*(?:\s*=\s*|["']\s*:\s*))('[^']*'|"[^"]*"|[^\s&]+)|\b((?:Bearer|Basic) )\S+""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text for people: passwords and tokens in addresses and parameters as `***`."""
    masked_logins = _PASSWORD.sub(r"\1:***@", text)
    return _SECRET.sub(lambda found: f"{found[1] or found[3]}***", masked_logins)


def visible(text: str) -> str:
    r"""Return a text in which nothing commands a terminal: an escape is shown as \x1b."""
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode()
        for one in text
    )


def shape(value: object) -> str:
    """Return how a value looks without saying what it is: `Ann-17` becomes `Aaa-99`."""
    text = re.sub(r"\d", "9", str(value))
    return "".join(
        letter if not letter.isalpha() else "A" if letter.isupper() else "a" for letter in text
    )


def masked(message: str) -> str:
    """Return the first line of a library's message with every value that it quotes as its shape."""
    message = without_secrets(message)
    line = message.splitlines()[0][:300] if message else ""
    return _QUOTED.sub(lambda quoted: shape(quoted[0]), line)


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a mistyped one most resembles; None when it resembles none."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the question that names the nearest known name, or None."""
    near = nearest_name(name, known)
    return None if near is None else f"did you mean {near!r}?"


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Return the known names as text, the nearest first; of many, some and how many more."""
    names = list(known)
    shown = difflib.get_close_matches(name, names, n=SHOWN_NAMES, cutoff=0.0)
    more = f" or {len(names) - len(shown)} others" if len(names) > len(shown) else ""
    return f"{', '.join(shown)}{more}"


class MlopsError(Exception):
    """An error with a message a person can act on.

    `what` went wrong, in one sentence; `where`: the file, key, column, table or run; what would
    have been `expected`, and was `found`; the `way_out` is what to do about it. No secret of an
    address is shown.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        way_out: str | None = None,
    ) -> None:
        self.what, self.where, self.way_out = what, where, way_out
        self.expected, self.found = expected, found
        named = {"where": where, "expected": expected, "found": found, "what to do": way_out}
        lines = (f"{name}: {text}" for name, text in named.items() if text)
        super().__init__(without_secrets("\n  ".join([what, *lines])))


class ConfigError(MlopsError):
    """A configuration file or setting is wrong."""


class ExpressionError(MlopsError, ValueError):
    """A scalar expression does not parse or fit; a ValueError, so that pydantic names the key."""


class DataError(MlopsError):
    """The data cannot be used as they are."""


class SourceError(DataError):
    """A source file is missing, unreadable or breaks its schema."""


class ValidationError(DataError):
    """Too much of a source failed its rules; nothing was accepted."""


class SplitError(DataError):
    """A part of the train/validation/test split is empty or has one class only."""


class NotFoundError(MlopsError):
    """Something was asked for by name that does not exist."""

    @classmethod
    def of(
        cls,
        kind: str,
        name: str,
        known: Iterable[str],
        *,
        where: str | None = None,
        way_out: str | None = None,
    ) -> "NotFoundError":
        """Return the error for a name; `way_out` is for one that resembles none of the known."""
        names = list(known)
        return cls(
            f"there is no {kind} {name!r}",
            where=where,
            expected=f"one of {nearest_names(name, names)}" if names else None,
            found=name,
            way_out=did_you_mean(name, names) or way_out,
        )


_IN_QUOTES = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_OF_MACHINE = {  # how systems and libraries say it, apart from values that they quote
    r"No space left|StorageFull|disk is full|quota exceeded|File too large|disk I/O error"
    r"|(os error|code:) (27|28|122)\b": (
        "there is no room left on a disk",
        "make room, then do it again: what was finished is kept, what was not is not there",
    ),
    r"Permission denied|PermissionDenied|not permitted|Read-only file|readonly database"
    r"|(os error|code:) (1|13|30)\b": (
        "a file or folder may not be read or written",
        "see whose it is, and that the settings name the right place (docs/settings.md)",
    ),
    r"Not a directory|No such file|Is a directory|name too long|levels of symbolic|embedded null"
    r"|kind: InvalidInput|No files found|unable to open database file|NotADirectory"
    r"|(os error|code:) (2|20|21|36|40)\b": (
        "a path cannot be used",
        "see that it exists and that the settings name the right place (docs/settings.md)",
    ),
    r"surrogates not allowed|UTF-8, surrogate": (
        "a text or path is not valid Unicode",
        "write it in UTF-8",
    ),
    r"Too many open files|(os error|code:) 24\b": (
        "too many files are open",
        "raise the limit (ulimit -n), or end what else runs",
    ),
    r"^MemoryError|OutOfMemory|Out of Memory|Cannot allocate memory": (
        "there is no memory left",
        "end what else runs, or lower MLOPS_MEMORY_LIMIT and MLOPS_THREADS",
    ),
    r"^\w+: \[Errno -?\d+\]": (
        "the operating system refused",
        "see what it said, and that the settings name the right place (docs/settings.md)",
    ),
}


class MachineError(MlopsError):
    """The machine does not do it: no room, no such path, no permission, no memory."""

    @classmethod
    def of(cls, error: BaseException) -> "MachineError | None":
        """Return the error for one of a library that the machine caused; None for another."""
        if isinstance(error, MlopsError):
            return None
        for cause in (getattr(error, "orig", None) or error, error.__cause__):
            said = "" if cause is None else f"{type(cause).__name__}: {cause}"
            is_about_files = isinstance(cause, OSError) or said.startswith("IOException")
            bare = said if is_about_files else _IN_QUOTES.sub("", said)
            for words, (what, way_out) in _OF_MACHINE.items():
                if re.search(words, bare):
                    return cls(what, found=said.splitlines()[0][:500], way_out=way_out)
        return None


class LeaseError(MlopsError):
    """Another lifecycle of the same use case is running."""


class StateError(MlopsError):
    """The ops database or registry does not allow this step now."""


class ContractError(MlopsError):
    """A stored model does not reload and score as it did when it was made."""


class ModelFilesError(ContractError):
    """A model's files are not those that were recorded."""


class PredictionLogError(MlopsError):
    """The log of predictions cannot be written or read: nothing may be answered."""


class RequestConflictError(MlopsError):
    """An id of a request came again with another body."""


class ReviewedError(MlopsError):
    """A person decided about an answer before, in another way."""


class OnlineStoreError(MlopsError):
    """The online feature store did not do what it was asked."""


class OnlineUnavailableError(OnlineStoreError):
    """The online store is gone, or refuses."""


class OnlineTimeoutError(OnlineStoreError):
    """The online store did not answer within its time limit."""


class OnlineFullError(OnlineStoreError):
    """The online store has no room for what was written."""


class OnlineCorruptError(OnlineStoreError):
    """What the online store holds is damaged."""


class OnlineDefinitionError(OnlineStoreError):
    """What the online store holds is of other feature definitions."""
