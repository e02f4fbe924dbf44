"""What one benchmark hands back: plain JSON between its process and `benchmarks.run`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

Cell = str | int | float
Row = Mapping[str, Cell]


@dataclass(frozen=True)
class Result:
    """One benchmark's figures.

    Parameters
    ----------
    name : str
        As for `--only`.
    what : str
        What is divided by what, in one sentence.
    figure : str
        The figure itself, usually a ratio.
    target : str
        What it should be; an empty text where it is only reported.
    tables : mapping of title to rows
        Where the figure comes from.
    """

    name: str
    what: str
    figure: str
    target: str = ""
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    def print(self) -> None:
        """Print one line of JSON, the last of the process."""
        print(json.dumps(asdict(self)), flush=True)

    @classmethod
    def of_output(cls, output: str) -> Self:
        """Read what `print` printed: the last line."""
        return cls(**json.loads(output.strip().splitlines()[-1]))


def parts(seconds: Mapping[str, float], *, column: str = "part") -> list[Row]:
    """Return named seconds as the rows of a table, the longest first."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return [{column: name, "seconds": round(value, 2)} for name, value in ordered]
