"""What a read of online features asks, whichever way it came: which use case, which values.

Belongs here: the choice of a use case by its entity, and what a request says in text, the same for
`mlops features get` and HTTP. The values are reader.py's.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.types import int64
from mlops_pipeline.errors import DataError, NotFoundError, did_you_mean

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.features.online.reader import OnlineFeatures, OnlineReader

QUESTION = ("features", "use_case")  # parameters beside the columns of a request
TRUTHS = {"true": True, "false": False}
WHOLE = re.compile(r"-?[0-9]{1,19}")  # an int64 has no more digits


def feature_list(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names in comma-separated texts, each once, in order."""
    names = [name.strip() for text in texts for name in text.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def request_texts(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return a request's columns by name; a column that is given twice is refused."""
    found: dict[str, str] = {}
    for name, text in pairs:
        if name in found:
            raise DataError(
                f"the request gives {name!r} twice",
                where=name,
                expected="one value",
                found="several",
                way_out="give it once",
            )
        found[name] = text
    return found


def choose_use_case(
    use_cases: Mapping[str, UseCase],
    entity: str,
    features: Collection[str],
    name: str | None = None,
) -> UseCase:
    """Return the use case that is meant by an entity's name.

    Several use cases may have an entity of the same name: then the one that is named, else the
    only one that has all the features.
    """
    having = {key: item for key, item in use_cases.items() if item.entity.name == entity}
    if not having:
        entities = sorted({item.entity.name for item in use_cases.values()})
        raise _unknown("entity", entity, entities, where="configs/")
    if name is not None:
        if name not in having:
            raise _unknown("use case", name, sorted(having), where=f"entity {entity}")
        return having[name]
    if len(having) == 1:
        return next(iter(having.values()))
    able = {key: item for key, item in having.items() if has_features(item, features)}
    if len(able) == 1:
        return next(iter(able.values()))
    if not able:
        raise _nowhere(having, entity, features)
    raise DataError(
        f"{entity} is an entity of several use cases",
        where=f"entity {entity}",
        expected=f"a use case beside it: {', '.join(sorted(able))}",
        found="features that each of them has" if features else "no feature named",
        way_out="name the use case: `use_case=NAME` in HTTP, `--use-case NAME` on the command line",
    )


def has_features(use_case: UseCase, features: Collection[str]) -> bool:
    """Check whether a use case defines all these features."""
    prefix = f"{use_case.entity.name}:"
    return {name.removeprefix(prefix) for name in features} <= set(use_case.features)


def read_entity(
    reader: "OnlineReader",
    use_case: UseCase,
    entity_id: str,
    features: Sequence[str] = (),
    *,
    request: Mapping[str, str] | None = None,
    at: datetime | None = None,
) -> "OnlineFeatures":
    """Read the features of one entity.

    `entity_id` is the key as text, `request` gives columns as text (see `request_row`). Without
    `features`: all that can be answered; without `request`, those that need none.
    """
    names = list(features)
    if not names:
        held_back = set() if request else request_features(use_case)
        names = [name for name in reader.names if name not in held_back]
    row = request_row(use_case, request) if request else None
    return reader.read([entity_id], names, request=[row] if row else None, at=at)[0]


def document(use_case: UseCase, entity_id: str, found: "OnlineFeatures") -> dict[str, Any]:
    """Return what was read as plain JSON; times are ISO 8601 text."""
    return {
        "entity": use_case.entity.name,
        "id": entity_id,
        "use_case": use_case.name,
        "read_at": found.read_at.isoformat(),
        "features": {
            name: {
                "value": item.value,
                "status": item.status,
                "feature_time": item.feature_time and item.feature_time.isoformat(),
            }
            for name, item in found.values.items()
        },
    }


def request_features(use_case: UseCase) -> set[str]:
    """Return the features that need columns of the request, directly or through others."""
    views = [view for view in use_case.views.values() if view.request_time]
    return use_case.with_dependents(name for view in views for name in view.columns)


def request_row(use_case: UseCase, given: Mapping[str, str]) -> dict[str, Any]:
    """Return a request's columns as values of their types.

    Whole numbers, decimal numbers, `true` or `false`, ISO 8601 dates and times (without a zone:
    UTC), text. Empty text is a missing value, except in a text column.
    """
    known = use_case.request_columns
    row = {}
    for name, text in given.items():
        if name not in known:
            raise DataError(
                f"no request-time feature reads {name!r}",
                where=use_case.name,
                expected=", ".join(sorted(known))
                or "no columns: nothing is computed from requests",
                found=name,
                way_out=did_you_mean(name, [*known, *QUESTION]) or "leave it out",
            )
        row[name] = _value(name, known[name], text)
    return row


def _value(name: str, kind: str, text: str) -> Any:
    if kind == "string":
        return text
    if not text:
        return None
    try:
        return _PARSERS[kind](text)
    except (ValueError, KeyError, DataError) as error:
        raise DataError(
            f"the request's {name} is not of its type",
            where=name,
            expected=kind,
            found="other text",
            way_out="write numbers in digits, truths as true or false, times as ISO 8601",
        ) from error


def _timestamp(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def _whole(text: str) -> int:
    if not WHOLE.fullmatch(text):
        raise ValueError(text)
    return int64(int(text))


def _finite(text: str) -> float:
    value = float(text)
    if "_" in text or not math.isfinite(value):  # Python takes 1_000 for a number
        raise ValueError(text)
    return value


_PARSERS: dict[str, Any] = {
    "int64": _whole,
    "float64": _finite,
    "boolean": lambda text: TRUTHS[text.lower()],
    "timestamp": _timestamp,
    "date": lambda text: _timestamp(text).date(),
}


def _unknown(kind: str, name: str, known: Sequence[str], *, where: str) -> NotFoundError:
    return NotFoundError.of(kind, name, known, where=where, way_out="mlops features list USE_CASE")


def _nowhere(
    having: Mapping[str, UseCase], entity: str, features: Collection[str]
) -> NotFoundError:
    """Say which feature none of the use cases has, or that no single one has all."""
    owners = {
        feature: [name for name, item in having.items() if has_features(item, [feature])]
        for feature in features
    }
    for feature, names in owners.items():
        if not names:
            known = sorted({name for item in having.values() for name in item.features})
            return _unknown("feature", feature.removeprefix(f"{entity}:"), known,
                            where=f"entity {entity}")  # fmt: skip
    return NotFoundError(
        "no use case has all of these features",
        where=f"entity {entity}",
        expected="features of one use case",
        found="; ".join(f"{name} of {', '.join(names)}" for name, names in owners.items()),
        way_out="ask once for each use case",
    )
