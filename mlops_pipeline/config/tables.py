"""Configuration of the data: sources, population, label, feature views, protected attributes."""

from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.spec.grammar import Expression
from mlops_pipeline.spec.kinds import AGGREGATES
from mlops_pipeline.spec.rules import SourceRule
from mlops_pipeline.spec.section import Days, Fraction, Name, OneOf, Scalar, Section

ColumnType = Literal["string", "int64", "float64", "boolean", "timestamp", "date"]
Aggregate = Annotated[str, OneOf(tuple(AGGREGATES))]
ALWAYS = "_always"  # the column of a table without time: 1970, before every as_of
Format = Literal["parquet", "csv", "delta"]
SUFFIXES: dict[Format, tuple[str, ...]] = {  # of the files in a folder; a Delta table is the folder
    "parquet": (".parquet",),
    "csv": (".csv", ".csv.gz"),
    "delta": (),
}
Refresh = Literal["continuous", "daily"]
FeatureType = Literal["float64", "int64", "string", "boolean"]
Direction = Literal["increasing", "decreasing"]
Deprecated = Annotated[
    bool, Field(description="Still computed for the models that use it; no input of new ones.")
]
Expected = Annotated[
    Direction | None, Field(description="How the score is expected to move as the value rises.")
]


class SourceColumn(Section):
    """One column of a source."""

    type: ColumnType
    description: str = ""
    optional: bool = Field(
        False, description="A file may lack it, and all of its values may be missing."
    )
    personal: bool = Field(False, description="Identifies a person; kept out of MLflow and logs.")


class Source(Section):
    """One input table: where it is, what it holds, when its rows could be known."""

    uri: str = Field(
        description="File, folder (with those below it) or glob; a relative path is below "
        "MLOPS_DATA_DIR."
    )
    format: Format = Field(
        "parquet", description="Default: by the ending of the uri; `parquet` where it has none."
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="Of a CSV file.")
    description: str = ""
    columns: dict[str, ColumnType | SourceColumn] = Field(min_length=1)
    key: tuple[str, ...] = Field(
        (), description="Columns that identify a row. Empty: the whole row and its occurrence."
    )
    event_time: str | None = Field(
        None, description="Column: when it happened (UTC). Only a snapshot does without."
    )
    available_at: str | None = Field(
        None, description="Column: when it could be known (UTC). Default: the event time."
    )
    lateness_days: Days = Field(
        3, description="How far behind the newest row a delivery may still bring rows."
    )
    sparse: bool = Field(
        False,
        description="Times without a row are normal, so that as_of and the online store do not "
        "wait for its newest row.",
    )
    static: bool = Field(False, description="A historical set: exempt from freshness.")
    rules: tuple[SourceRule, ...] = ()
    max_quarantined: Fraction = Field(
        0.05, description="The source is refused when a larger share of its rows break a rule."
    )

    @model_validator(mode="before")
    @classmethod
    def _format_of_ending(cls, given: Any) -> Any:
        if isinstance(given, dict) and "format" not in given and isinstance(given.get("uri"), str):
            found = [name for name, ends in SUFFIXES.items() if given["uri"].endswith(ends)]
            return {**given, "format": found[0]} if found else given
        return given

    def column(self, name: str) -> SourceColumn:
        """Return the full description of a column."""
        given = self.columns[name]
        return given if isinstance(given, SourceColumn) else SourceColumn(type=given)

    @property
    def unique_rule(self) -> str | None:
        """The name of the rule that its key is unique; None for a source without a key."""
        return f"unique({', '.join(self.key)})" if self.key else None

    @property
    def happened(self) -> str:
        """The column that says when it happened; of a table without time it is `ALWAYS`."""
        return self.event_time or ALWAYS

    @property
    def availability(self) -> str:
        """The column that says when a row could be known."""
        return self.available_at or self.happened

    def is_day(self, column: str) -> bool:
        """Whether a column tells the day only: what it dates is known at the end of that day."""
        return column in self.columns and self.column(column).type == "date"

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns that the lake keeps."""
        return (*self.columns, *(() if self.event_time else (ALWAYS,)))


class Entity(Section):
    """Whom or what a prediction is about."""

    name: Name
    key: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        max_length=60,
        description="The column that identifies it, in every source.",
    )


class Grid(Section):
    """The times (as_of) at which features and predictions exist."""

    every: Literal["month", "week", "day", "event", "once"]
    start: date | None = Field(
        None, description="First as_of (UTC date); required unless `every` is `event` or `once`."
    )
    period: Literal["month", "week", "day"] = Field(
        "month", description="For `every: event`: events are grouped and cut by this period."
    )


class Population(Section):
    """Which entities exist at an as_of."""

    source: str = Field(description="An entity belongs once it has a row here before as_of.")
    where: Expression | None = Field(None, description="Only rows that satisfy this count.")
    active_within_days: Days | None = Field(
        None, description="Only entities with a row in this many days before as_of."
    )
    leaves_with: str | None = Field(
        None, description="A source of events after which an entity no longer belongs."
    )


class Label(Section):
    """What is predicted, and when the truth is known."""

    kind: Literal["column", "event_present", "event_absent"]
    source: str
    also: tuple[str, ...] = Field(
        (),
        description="Further sources of the same label, which count where those before them say "
        "nothing yet. Of a column: rows of the same key, or the same entity and event time.",
    )
    column: str | None = Field(None, description="For `kind: column`.")
    positive: Scalar = 1
    negative: Scalar = 0
    where: Expression | None = Field(None, description="Only events that satisfy this count.")
    horizon_days: Days | None = Field(None, description="For events: the window after as_of.")
    available_at: str | None = Field(
        None, description="For `kind: column`: the column that says when the label was known."
    )
    delay_days: Days | None = Field(
        None,
        description="Further delay until the label is known. Default: for events, the "
        "`lateness_days` of the source, since an event may arrive so late; for a column, 0.",
    )
    treatment: str | None = Field(
        None, description="Column that says whether somebody acted on a prediction."
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source of the label, in order of precedence."""
        return (self.source, *self.also)


class FeatureColumn(Section):
    """One feature of a view."""

    aggregate: Aggregate | None = Field(
        None, description="Not given for a `request_time` view: the value of the row itself."
    )
    of: Expression | None = Field(None, description="Expression over the source's columns.")
    window_days: Days | None = Field(
        None, description="Rows with event time in [as_of - offset - window, as_of - offset)."
    )
    window_hours: int | None = Field(
        None, ge=1, le=24 * 366, description="The window in hours, instead of `window_days`."
    )
    offset_days: Days = Field(0, description="Shifts the window into the past.")
    where: Expression | None = Field(None, description="Only rows that satisfy this count.")
    dtype: FeatureType = "float64"
    precision: int = Field(
        4, ge=0, le=6, description="Decimal places kept; inputs of sums are rounded to it."
    )
    description: str = ""
    unseen: float | int | None = Field(
        None, description="For an entity without rows; counts default to 0, others to missing."
    )
    deprecated: Deprecated = False
    expected: Expected = None

    @model_validator(mode="after")
    def _one_window(self) -> "FeatureColumn":
        if self.window_days is not None and self.window_hours is not None:
            raise ValueError("window_hours: give either window_days or window_hours")
        return self

    @property
    def value(self) -> Expression:
        """The expression of a column that has one."""
        if self.of is None:
            raise ConfigError("a feature column has no expression", expected="`of`")
        return self.of

    @property
    def is_count(self) -> bool:
        """The column only counts."""
        return self.aggregate is not None and AGGREGATES[self.aggregate].is_count

    @property
    def fill(self) -> float | int | None:
        """What an entity without rows gets; None: missing."""
        return 0 if self.unseen is None and self.is_count else self.unseen

    @property
    def reads(self) -> frozenset[str]:
        """The columns of the source that the feature reads."""
        given = [item.columns for item in (self.of, self.where) if item is not None]
        return frozenset().union(*given)

    @property
    def window(self) -> timedelta | None:
        """How long the window is; None: every row before as_of counts."""
        if self.window_hours is not None:
            return timedelta(hours=self.window_hours)
        return None if self.window_days is None else timedelta(days=self.window_days)

    @property
    def reach(self) -> timedelta | None:
        """How far before as_of the column looks; None: without limit."""
        return None if self.window is None else self.window + timedelta(days=self.offset_days)


class FeatureView(Section):
    """Features computed from one source."""

    source: str
    owner: str = ""
    description: str = ""
    freshness_days: float | None = Field(
        None,
        ge=0,
        le=36_500,
        description="Older values count as stale online. What is counted from a stream of events "
        "is as old as the newest event of the stream, whoever's it is; default there: an hour.",
    )
    ttl_days: Days | None = Field(
        None, description="Older values are dropped from the online store. Default: never."
    )
    refresh: Refresh = Field(
        "continuous",
        description="On an event grid. continuous: at each event's own time, online from the "
        "stream of events; daily: as of the last midnight (UTC), online by materialization.",
    )
    online: bool = Field(True, description="Also served by the online store.")
    request_time: bool = Field(
        False, description="The columns come from the row itself at as_of (a snapshot table)."
    )
    columns: dict[str, FeatureColumn] = Field(min_length=1)

    @model_validator(mode="after")
    def _lives_long_enough(self) -> "FeatureView":
        if self.ttl_days is not None and self.ttl_days < (self.freshness_days or 0):
            raise ValueError("ttl_days: shorter than freshness_days; no value could be stale")
        return self


class DerivedFeature(Section):
    """A scalar expression over features of the same row."""

    expression: Expression
    description: str = ""
    dtype: FeatureType = "float64"
    precision: int = Field(6, ge=0, le=12)
    deprecated: Deprecated = False
    expected: Expected = None


class ProtectedAttribute(Section):
    """An attribute that is audited; a model input only when declared."""

    source: str
    of: Expression = Field(description="Latest value before as_of (request-time row: its own).")
    description: str = ""
    as_input: bool = False
