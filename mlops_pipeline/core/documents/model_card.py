"""The model card of a version: one page for people who have never seen the project.

Belongs here: what the summary warns of, and how each figure is to be read. The page is
model_card.md.jinja, the facts are card_facts.py's.
"""

import math
from collections.abc import Iterator, Mapping

from mlops_pipeline.core.documents.card_facts import (
    STATES,
    CardFacts,
    outcomes,
    stress_losses,
    weakest_slices,
)
from mlops_pipeline.core.documents.pages import figure, plain, render_markdown
from mlops_pipeline.core.documents.report import number, share
from mlops_pipeline.core.evaluation.gates import PARITY_RULE

WORST_SLICES = 5
TOP_FEATURES = 10
KINDS: Mapping[str, str] = {
    "lightgbm": "gradient-boosted decision trees (LightGBM)",
    "random_forest": "a random forest (LightGBM)",
    "logistic": "logistic regression",
    "dummy": "the base rate for everyone",
}
QUALITY = (  # lower ends of ROC AUC; Hosmer, Lemeshow & Sturdivant 2013, section 5.2.4
    (0.9, "very well"),
    (0.8, "well"),
    (0.7, "acceptably"),
    (0.0, "weakly"),
)
READING: Mapping[str, str] = {
    "roc_auc": "How often a positive case scores higher than a negative one: 0.5 is a coin toss, "
    "1 is perfect.",
    "pr_auc": "Share of true hits among the highest scores, averaged over all cut-offs; picking "
    "blindly gives {base}.",
    "log_loss": "Penalty for probabilities that are confident and wrong, lower is better; saying "
    "{base} for everyone gives {entropy}.",
    "brier": "Mean squared distance of the probabilities from what happened, lower is better; "
    "saying {base} for everyone gives {spread}.",
    "ece": "Mean distance of predicted from observed shares (calibration error), lower is better.",
    "precision": "Of the cases that get a yes, so many are positive.",
    "recall": "Of the positive cases, so many get a yes.",
    "f1": "Precision and recall in one figure, between 0 and 1.",
    "selection_rate": "So many of all cases get a yes.",
}


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown; pages.render_html makes the HTML of it."""
    evaluation, auc = facts.evaluation, facts.evaluation["metrics"]["roc_auc"]["value"]
    explained = evaluation.get("explanations") or {}
    weakest = [] if auc is None else weakest_slices(evaluation, WORST_SLICES)
    return render_markdown(
        "model_card.md.jinja",
        {
            "facts": facts,
            "standing": facts.standing,
            "kinds": KINDS,
            "states": STATES,
            "quality": next(word for low, word in QUALITY if (auc or 0.0) >= low),
            "typical": outcomes(facts),
            "warnings": list(_warnings(facts)),
            "reading": _reading(facts.test["positive_rate"]),
            "weakest": weakest,
            "has_ranges": any(item["group"].startswith("(") for item in weakest),
            "losses": stress_losses(evaluation),
            "explained": {"directions": (), "champion": None, **explained},
            "strongest": _strongest(facts, explained.get("shap") or evaluation.get("shap") or {}),
        },
    )


def _warnings(facts: CardFacts) -> Iterator[str]:
    yield from (text for text, is_above in facts.parity if is_above)
    for rule in facts.gate["rules"]:
        if rule["passed"] is not True and not rule["name"].startswith(PARITY_RULE):
            yield f"the rule “{plain(rule['name'])}” did not pass"
    for item in weakest_slices(facts.evaluation, 1):
        value = number(item["metrics"]["roc_auc"]["value"], 3)
        yield f"it ranks worst for {item['column']} = {item['group']} (ROC AUC {value})"
    for change, case in stress_losses(facts.evaluation)[:1]:
        value, name = number(case["metrics"]["roc_auc"]["value"], 3), case["group"].split(":")[0]
        if change < 0:
            yield f"it loses most in the stress case “{name}” (ROC AUC {value})"
    for item in (facts.evaluation.get("explanations") or {}).get("directions", ()):
        if item["passed"] is False:
            yield f"{item['feature']} is declared {item['expected']}, and the model goes against it"


def _reading(rate: float) -> list[tuple[str, str]]:
    """Return how to read each metric, with what the base rate alone would give."""
    entropy = -sum(p * math.log(p) for p in (rate, 1 - rate) if p > 0)
    blind = {
        "base": share(rate),
        "spread": figure(rate * (1 - rate)),
        "entropy": figure(entropy),
    }
    return [(name, text.format(**blind)) for name, text in READING.items()]


def _strongest(facts: CardFacts, shap: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """Return (input, description, share of all mean |SHAP|), the largest first."""
    total, described = sum(shap.values()), facts.use_case.descriptions
    if not total:
        return []
    top = sorted(shap.items(), key=lambda pair: -pair[1])[:TOP_FEATURES]
    return [(name, described.get(name, ""), value / total) for name, value in top]
