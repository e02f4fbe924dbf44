"""Configuration of split, training, evaluation, fairness, rollout and retraining."""

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from mlops_pipeline.spec.grammar import Expression
from mlops_pipeline.spec.kinds import KINDS, MethodName, Parameters
from mlops_pipeline.spec.metrics import MetricName
from mlops_pipeline.spec.rules import InputRule
from mlops_pipeline.spec.section import Days, Fraction, Name, Section

SECONDS_PER_HOUR = 3_600
CROSSED = " x "  # "gender x region": no name of an attribute holds a space


class Split(Section):
    """How labelled rows are divided. Time: cut on whole periods, one label horizon purged."""

    method: Literal["time", "random"] = "time"
    train: Fraction = 0.70
    validation: Fraction = 0.15
    test: Fraction = 0.15

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Split":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test must be 1, found {total:g}")
        return self


if TYPE_CHECKING:
    Candidate = Parameters
else:
    Candidate = Annotated[
        reduce(or_, (item.parameters for item in KINDS.values())), Field(discriminator="kind")
    ]


class Costs(Section):
    """What a wrong decision costs, in one unit; threshold = fp / (fp + fn)."""

    false_positive: float = Field(1.0, gt=0)
    false_negative: float = Field(1.0, gt=0)


class Training(Section):
    """What is tried, and how the choice becomes a decision."""

    candidates: dict[Name, Candidate] = Field(min_length=1)
    seed: int = 7
    class_weight: Literal["none", "balanced"] = "none"
    calibration: Literal["isotonic", "sigmoid", "none"] = "isotonic"
    refit: Literal["all_labelled", "newest", "none"] = Field(
        "all_labelled", description="What the registered model is fitted on after the gate."
    )
    costs: Costs = Costs()
    review_band: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Width in probability, around the threshold, within which a person decides.",
    )
    tie_tolerance: float = Field(
        0.0005, ge=0, description="Validation log losses this close are a tie: the simpler wins."
    )
    min_positives: int = Field(
        50, ge=1, description="Fewer positive labels in the training part are an error."
    )


class ComputeCost(Section):
    """What the machine costs while assets work on it; nothing is assumed about people's time."""

    per_hour: float = Field(0.36, ge=0, description="Price of one hour, in `currency`.")
    currency: str = Field("EUR", min_length=1)

    def of(self, seconds: float) -> float:
        """Return the price of this many seconds, in `currency`."""
        return seconds * self.per_hour / SECONDS_PER_HOUR


class Evaluation(Section):
    """How the test part is looked at, beyond the overall figures."""

    slices: tuple[str, ...] = Field((), description="Features or protected attributes.")
    min_slice_rows: int = Field(200, ge=10)
    missing_block: str | None = Field(
        None, description="Stress case: this feature view arrives empty."
    )
    newest_within_days: Days = Field(
        180, description="Stress case: only entities first seen this recently."
    )
    first_seen: str | None = Field(
        None, description="The feature that counts days since the entity was first seen."
    )


class Mitigation(Section):
    """What is tried when a gate fails on blocking parity rules only, and how one is chosen."""

    methods: tuple[MethodName, ...] = Field(
        ("reweighing", "group_thresholds", "grid_search"),
        description="`[]`: a refusal stands, nothing is tried.",
    )
    grid_size: int = Field(4, ge=1, le=50, description="Models that `grid_search` fits.")
    margin: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="On the validation part a disparity is at most this share below its limit.",
    )
    prefer: Literal["expected_cost"] | MetricName = Field(
        "expected_cost", description="The validation figure by which one of the fair is chosen."
    )
    max_loss: float = Field(
        0.1, ge=0, description="Largest loss of `prefer` against the base model, as a share of it."
    )


class Fairness(Section):
    """How decisions are audited by protected attribute, and how a disparity is mitigated."""

    intersections: bool = Field(
        True, description="Audit pairs of attributes too, as `gender x region`."
    )
    min_group_rows: int = Field(
        100, ge=1, description="Of a smaller group no figure is computed, and none shown."
    )
    demographic_parity_at_most: Fraction = Field(
        0.05, description="Live decisions that differ by more between groups raise an alert."
    )
    lookback_days: int = Field(
        365, ge=1, le=36_500, description="The live audit reads decisions of this many days."
    )
    audit_day: int = Field(6, ge=1, le=28, description="Day of the monthly live audit.")
    attribute_at_decision: Literal["allowed", "forbidden"] = Field(
        "forbidden",
        description="Whether a decision may know the protected attribute that is mitigated.",
    )
    mitigation: Mitigation = Mitigation()


def attribute_pairs(names: Sequence[str]) -> tuple[str, ...]:
    """Return the intersections of attributes: "gender x region"."""
    return tuple(CROSSED.join(pair) for pair in combinations(names, 2))


def is_intersection(attribute: str) -> bool:
    """Whether an audited attribute is a pair."""
    return CROSSED in attribute


class Explanations(Section):
    """What is said about a single score."""

    reason_codes: int = Field(
        3, ge=0, le=20, description="Reasons given with every batch prediction; 0: none."
    )


DocumentSlot = Literal[
    "provider",
    "interaction",
    "supply",
    "product_illustrations",
    "instructions_for_use",
    "human_oversight",
    "cybersecurity",
    "unintended_outcomes",
    "metrics_rationale",
    "risk_management",
    "standards",
    "declaration_of_conformity",
    "post_market_plan",
]


class Review(Section):
    """How often people look at a deployed model, in months."""

    performance_months: int = Field(1, ge=1, le=60)
    fairness_months: int = Field(3, ge=1, le=60)
    card_months: int = Field(3, ge=1, le=60)
    retraining_months: int = Field(12, ge=1, le=60)


class Governance(Section):
    """What people answer for: reviews, and the texts that only they can write."""

    review: Review = Review()
    documents: dict[DocumentSlot, str] = Field(
        default_factory=dict, description="Files for the technical documentation, by slot."
    )


class Stage(Section):
    """One step of a rollout: the share of entities that the new version decides about."""

    share: Fraction = Field(
        description="0 is shadow: it scores every request and decides about nobody; 1 is full."
    )
    days: float = Field(0.0, ge=0, description="It lasts at least so long.")
    requests: int = Field(
        0, ge=0, description="It lasts until at least so many requests were answered in it."
    )
    approval: bool = Field(False, description="A person approves before it begins.")

    @property
    def name(self) -> str:
        """What people call it: shadow, 5 %, full."""
        return {0.0: "shadow", 1.0: "full"}.get(self.share, f"{100 * self.share:g} %")


SHARES = {"shadow": 0.0, "full": 1.0}


def _stage(given: object) -> object:
    return {"share": SHARES[given]} if isinstance(given, str) and given in SHARES else given


NamedStage = Annotated[
    Stage, BeforeValidator(_stage, json_schema_input_type=Stage | Literal["shadow", "full"])
]


class Guardrails(Section):
    """What a new version may not do while it is in trial: beyond a limit it is rolled back."""

    error_share: Fraction = Field(0.01, description="Share of requests that it fails on.")
    latency_ms: float = Field(
        200.0, gt=0, description="At most 1 % of its answers take longer (p99)."
    )
    default_share: Fraction = Field(
        0.05, description="Share of requests where it gives the default and the champion does not."
    )
    score_shift: Fraction = Field(
        0.15,
        description="Largest distance between the distributions of its scores and of those on "
        "rows that it had not seen (Kolmogorov-Smirnov).",
    )
    parity_difference: Fraction | None = Field(
        None,
        description="Largest difference of its decisions between groups; not given: "
        "`fairness.demographic_parity_at_most`.",
    )
    cost_increase: float = Field(
        0.1, ge=0, description="Cost of its decisions per entity above the champion's, as a share."
    )
    outcome_change: Fraction = Field(
        0.05, description="Difference of the outcome rates of those it and the champion decide on."
    )


class LiveEvidence(Section):
    """When what really happened lets a new version go on."""

    labels: Literal["required", "when_complete"] | None = Field(
        None,
        description="`required`: no stage ends without complete labels. `when_complete`: they "
        "count when they are there, after full if need be. Not given: `when_complete` where labels "
        "take longer than the stages before full.",
    )
    brier_margin: float = Field(
        0.002, gt=0, lt=1, description="A Brier score that is worse by less is not worse."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of every statement, at any time.")


class RolloutPolicy(Section):
    """The stages a new version goes through, and what it has to show in them."""

    stages: tuple[NamedStage, ...] = Field(default=("full",), min_length=1)  # type: ignore[arg-type] # validated
    guardrails: Guardrails = Guardrails()
    evidence: LiveEvidence = LiveEvidence()
    test_entities: tuple[str, ...] = Field(
        (), description="Ids that the new version always decides about; not counted as evidence."
    )
    keep_previous_days: int = Field(
        14, ge=1, le=3_650, description="So long the champion before can be gone back to, at least."
    )
    approval: Literal["when_gate_asks", "always"] = Field(
        "when_gate_asks",
        description="`always`: a person approves every version.",
    )
    four_eyes: bool = Field(
        False, description="Who triggered the run that made a version may not approve it."
    )

    @model_validator(mode="after")
    def _rises_to_full(self) -> "RolloutPolicy":
        shares = [stage.share for stage in self.stages]
        if shares != sorted(set(shares)) or shares[-1] != 1:
            found = ", ".join(f"{share:g}" for share in shares)
            raise ValueError(f"the shares of stages have to rise to 1 (full), found {found}")
        return self

    @property
    def is_staged(self) -> bool:
        """Whether a new version is tried beside the champion before it takes its place."""
        return len(self.stages) > 1


class Serving(Section):
    """What the prediction service answers where no model may decide, and how it logs."""

    default_decision: bool = Field(
        False, description="The decision where no model may decide; it is marked as a default."
    )
    on_missing: dict[str, Literal["default", "score"]] = Field(
        default_factory=dict,
        description="By view: what follows when its features are missing or stale. `default` (also "
        "of views that are not named): the default decision. `score`: the model decides on what "
        "there is.",
    )
    inputs: tuple[InputRule, ...] = Field(
        (),
        description="What features and columns of a request have to hold; else the default "
        "decision is given, with the rule as its reason.",
    )
    high_impact: Expression | None = Field(
        None,
        description="Over features and columns of a request: where it is true, a person looks at "
        "the answer (`needs_review`).",
    )
    log_days: int = Field(
        90,
        ge=7,
        description="After so many days an answer that is in the lake leaves the log; until then "
        "its `request_id` is known.",
    )
    log_durability: Literal["disk", "process"] = Field(
        "disk",
        description="An answer leaves when its log entry survives: `disk` a cut of power, "
        "`process` the end of the process.",
    )


class Retraining(Section):
    """When the lifecycle runs by itself."""

    new_labels: int = Field(10_000, ge=1, description="More new labels than this: retrain.")
    on_new_data: bool = Field(False, description="Turns the new-data sensor on.")
    monthly_day: int = Field(5, ge=1, le=28, description="Day of the monthly retraining.")
    max_attempts: int = Field(3, ge=1, le=10, description="Runs on the same evidence.")
