"""Configuration of the data: sources, their schema and rules, the population, the label."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from mlops_pipeline.spec.grammar import Expression
from mlops_pipeline.spec.section import Days, Fraction, Name, Section

ColumnType = Literal["string", "int64", "float64", "boolean", "timestamp", "date"]
Scalar = str | int | float | bool


class SourceColumn(Section):
    """One column of a source."""

    type: ColumnType
    description: str = ""
    personal: bool = Field(False, description="Identifies a person; kept out of MLflow and logs.")


class NotNull(Section):
    """Rows where a column is missing are quarantined."""

    rule: Literal["not_null"]
    columns: tuple[str, ...]


class Range(Section):
    """Rows where a present value lies outside [min, max] are quarantined."""

    rule: Literal["range"]
    column: str
    min: float | None = None
    max: float | None = None


class InSet(Section):
    """Rows where a present value is not one of `values` are quarantined."""

    rule: Literal["in_set"]
    column: str
    values: tuple[Scalar, ...]


class Check(Section):
    """Rows where the expression is false are quarantined (missing counts as true)."""

    rule: Literal["check"]
    name: Name
    expression: Expression


class Completeness(Section):
    """The source is refused when too few rows have a value in the column."""

    rule: Literal["completeness"]
    column: str
    at_least: Fraction


class MinRows(Section):
    """The source is refused when fewer rows than this are left after quarantine."""

    rule: Literal["min_rows"]
    at_least: int = Field(ge=1)


class Freshness(Section):
    """The source is refused when its newest row became available too long ago."""

    rule: Literal["freshness"]
    at_most_days: float = Field(gt=0)


class ClassBalance(Section):
    """The source is refused when the share of `positive` leaves [min, max]."""

    rule: Literal["class_balance"]
    column: str
    positive: Scalar = 1
    min: Fraction = 0.0
    max: Fraction = 1.0


Rule = Annotated[
    NotNull | Range | InSet | Check | Completeness | MinRows | Freshness | ClassBalance,
    Field(discriminator="rule"),
]


class Source(Section):
    """One input table: where it is, what it holds, when its rows could be known."""

    uri: str = Field(description="File, folder or glob; a relative path is below MLOPS_DATA_DIR.")
    format: Literal["parquet", "csv"] = "parquet"
    delimiter: str = Field(",", min_length=1, max_length=1, description="Of a CSV file.")
    description: str = ""
    columns: dict[str, ColumnType | SourceColumn] = Field(min_length=1)
    key: tuple[str, ...] = Field(
        (), description="Columns that identify a row. Empty: the whole row and its occurrence."
    )
    event_time: str = Field(description="Column: when it happened (UTC).")
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
    rules: tuple[Rule, ...] = ()
    max_quarantined: Fraction = Field(
        0.05, description="The source is refused when a larger share of its rows break a rule."
    )

    def column(self, name: str) -> SourceColumn:
        """Return the full description of a column."""
        given = self.columns[name]
        return given if isinstance(given, SourceColumn) else SourceColumn(type=given)

    @property
    def unique_rule(self) -> str | None:
        """The name of the rule that its key is unique; None for a source without a key."""
        return f"unique({', '.join(self.key)})" if self.key else None

    @property
    def availability(self) -> str:
        """The column that says when a row could be known."""
        return self.available_at or self.event_time


class Entity(Section):
    """Whom or what a prediction is about."""

    name: Name
    key: Name = Field(description="The column that identifies it, in every source.")


class Grid(Section):
    """The times (as_of) at which features and predictions exist."""

    every: Literal["month", "week", "day", "event"]
    start: date | None = Field(
        None, description="First as_of (UTC date); required unless `every: event`."
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
    column: str | None = Field(None, description="For `kind: column`.")
    positive: Scalar = 1
    negative: Scalar = 0
    where: Expression | None = Field(None, description="Only events that satisfy this count.")
    horizon_days: Days | None = Field(None, description="For events: the window after as_of.")
    available_at: str | None = Field(
        None, description="For `kind: column`: the column that says when the label was known."
    )
    delay_days: Days = Field(0, description="Further delay until the label is known.")
    treatment: str | None = Field(
        None, description="Column that says whether somebody acted on a prediction."
    )
