"""The technical documentation of a version, after Annex IV of Regulation (EU) 2024/1689.

Belongs here: the points of the annex, in our words, and what a person has to add to each. What the
recorded facts say to a point is technical_file.md.jinja's, the folder compliance/pack.py's.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mlops_pipeline.config.modelling import DocumentSlot
from mlops_pipeline.core.documents.model_card import CardFacts
from mlops_pipeline.core.documents.pages import render_markdown

Status = Literal["filled", "partly filled", "not provided"]
TITLES: Mapping[str, str] = {
    "1": "General description",
    "2": "Elements of the system and how it was developed",
    "3": "Monitoring, functioning and control",
    "4": "Why these performance metrics fit",
    "5": "Risk management system",
    "6": "Changes over the lifecycle",
    "7": "Harmonised standards and other specifications",
    "8": "EU declaration of conformity",
    "9": "Performance after it is in use",
}


WITHOUT_FACTS = frozenset(  # slots of points about which nothing is recorded
    (
        "product_illustrations",
        "instructions_for_use",
        "standards",
        "declaration_of_conformity",
    )
)


@dataclass(frozen=True)
class Point:
    """One point of the annex, and what a person has to add to it.

    `slot` is the key in `governance.documents`, `wanted` says it in words.
    """

    number: str
    title: str
    slot: DocumentSlot | None = None
    wanted: str = ""

    def status(self, provided: Mapping[str, str]) -> Status:
        """Return whether facts, a person, or neither speak to it."""
        if self.slot is None or self.slot in provided:
            return "filled"
        return "not provided" if self.slot in WITHOUT_FACTS else "partly filled"


POINTS = (
    Point("1 (a)", "Purpose, provider, version", "provider", "name and address of the provider"),
    Point("1 (b)", "Interaction with other systems", "interaction", "the systems it works with"),
    Point("1 (c)", "Versions of software"),
    Point("1 (d)", "Forms of supply", "supply", "the forms in which it is supplied to others"),
    Point("1 (e)", "Hardware"),
    Point("1 (f)", "Pictures of the product", "product_illustrations", "pictures of it, if any"),
    Point("1 (g)", "User interface"),
    Point("1 (h)", "Instructions for use", "instructions_for_use", "instructions for its users"),
    Point("2 (a)", "Methods and steps"),
    Point("2 (b)", "Design, logic and choices"),
    Point("2 (c)", "Architecture and computing resources"),
    Point("2 (d)", "Data: origin, selection, labels, cleaning"),
    Point("2 (e)", "Human oversight", "human_oversight", "an assessment of the oversight needed"),
    Point("2 (f)", "Planned changes"),
    Point("2 (g)", "Validation and testing"),
    Point("2 (h)", "Cybersecurity", "cybersecurity", "the security measures where it runs"),
    Point("3", "Capabilities and limits, overall and by group"),
    Point(
        "3",
        "Unintended outcomes and risks",
        "unintended_outcomes",
        "foreseeable unintended outcomes, and risks to people",
    ),
    Point("3", "Human oversight in operation"),
    Point("3", "Input data"),
    Point("4", TITLES["4"], "metrics_rationale", "why these metrics fit this purpose"),
    Point("5", TITLES["5"], "risk_management", "the risk management system"),
    Point("6", TITLES["6"]),
    Point("7", TITLES["7"], "standards", "the standards applied"),
    Point("8", TITLES["8"], "declaration_of_conformity", "a copy of the declaration"),
    Point("9", TITLES["9"], "post_market_plan", "the post-market monitoring plan"),
)


def technical_file(facts: CardFacts, provided: Mapping[str, str]) -> str:
    """Return the page as Markdown: an overview of what is filled, then point by point."""
    return render_markdown(
        "technical_file.md.jinja",
        facts=facts,
        points=POINTS,
        titles=TITLES,
        provided=provided,
        rules=sum(len(source.rules) for source in facts.use_case.sources.values()),
    )


def statuses(provided: Mapping[str, str]) -> Mapping[Status, int]:
    """Return how many points have which status."""
    return Counter(point.status(provided) for point in POINTS)
