"""The sections of a model card: their titles in order, and the text of one."""

SECTIONS = [
    "What it is for",
    "Training data",
    "How it was made",
    "How good it is",
    "From probability to decision",
    "Where it is weaker",
    "Limitations found by stress cases",
    "Fairness",
    "What moves the score",
    "Can the probabilities be trusted",
    "Approvals and state",
    "Reviews",
    "What changed",
    "Licence, environment and cost",
]


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
