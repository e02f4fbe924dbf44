"""AGGREGATES: what a feature column can be of the rows that count.

Belongs here: name and what it needs. How it is computed, of tables and of events, is the entry of
the same name in core/features/aggregates.py: an aggregate is an entry here and one there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Aggregate:
    """What the configuration and its checks know of an aggregate.

    `is_count`: it says how many, so it is 0 for an entity without rows, and carries no value of the
    column that it counts.
    """

    needs_column: bool = True
    is_count: bool = False


AGGREGATES: Mapping[str, Aggregate] = MappingProxyType(
    {
        "sum": Aggregate(),
        "mean": Aggregate(),
        "min": Aggregate(),
        "max": Aggregate(),
        "std": Aggregate(),
        "count": Aggregate(needs_column=False, is_count=True),
        "count_distinct": Aggregate(is_count=True),
        "last": Aggregate(),
        "days_since_last": Aggregate(needs_column=False),
        "days_since_first": Aggregate(needs_column=False),
    }
)
