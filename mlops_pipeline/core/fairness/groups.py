"""The groups that are made equal.

Belongs here: which rows form a group. With several attributes a group is a combination of their
values: when all combinations are treated alike, so are the values of each attribute.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.fairness import CROSSED

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
NO_GROUP = -1


@dataclass(frozen=True)
class Groups:
    """Groups of people; each is one or more combinations of the attributes' values."""

    attributes: tuple[str, ...]
    values: tuple[tuple[tuple[str, ...], ...], ...]

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.values)

    def codes(self, protected: Mapping[str, npt.NDArray[Any]]) -> Codes:
        """Return the group of each row `(n_rows,)`, -1 where it has none."""
        found = {each: code for code, group in enumerate(self.values) for each in group}
        rows = zip(*(protected[name] for name in self.attributes), strict=True)
        codes: Codes = np.asarray([found.get(row, NO_GROUP) for row in rows], dtype=np.int64)
        return codes


def learn_groups(
    protected: Mapping[str, npt.NDArray[Any]], attributes: Sequence[str], min_rows: int
) -> Groups:
    """Return the groups of the rows given.

    Combinations with fewer than `min_rows` rows form one group together; if even that is smaller,
    they have none. Neither has a row of which an attribute is missing.
    """
    rows = zip(*(protected[name] for name in attributes), strict=True)
    counts = Counter(row for row in rows if None not in row)
    large = sorted(values for values, count in counts.items() if count >= min_rows)
    small = sorted(values for values, count in counts.items() if count < min_rows)
    groups: list[tuple[tuple[str, ...], ...]] = [(values,) for values in large]
    if sum(counts[values] for values in small) >= min_rows:
        groups.append(tuple(small))
    return Groups(tuple(attributes), tuple(groups))


def selection_difference(
    decision: npt.NDArray[np.bool_], values: npt.NDArray[Any], min_rows: int
) -> float | None:
    """Return the demographic parity difference of an attribute: that of the audit, without more.

    The largest minus the smallest selection rate, of groups with at least `min_rows` rows; None
    with fewer than two of them. Rows without a value count nowhere.
    """
    rows = Counter(value for value in values if value is not None)
    selected = Counter(value for value in values[decision] if value is not None)
    rates = [selected[value] / count for value, count in rows.items() if count >= min_rows]
    return max(rates) - min(rates) if len(rates) > 1 else None


def attribute_values(protected: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """Return the values of an attribute, or of an intersection ("gender x region")."""
    columns = [protected[each] for each in name.split(CROSSED)]
    if len(columns) == 1:
        return columns[0]
    rows = zip(*columns, strict=True)
    return np.array([None if None in row else CROSSED.join(row) for row in rows], dtype=object)
