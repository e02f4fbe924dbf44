"""Scorers: a stored model's raw scores with numpy and the kind's own library, one file each.

A scorer's text is stored with every model of its kind, behind scoring.py's: of ours it imports
nothing but that and library.py. It has `load(document, texts) -> Scorer`.
"""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.spec.kinds import KINDS


def load(document: Mapping[str, Any], texts: Mapping[str, str]) -> Any:
    """Return the scorer of a stored model: model.json and the texts of its other files."""
    return modules_of(str(document["kind"]))[-1].load(document, texts)


def modules_of(kind: str) -> list[ModuleType]:
    """Return the files here that score a kind, each behind those it needs."""
    if kind not in KINDS:
        raise NotFoundError.of("model kind", kind, KINDS)
    scorer = import_module(f"{__name__}.{KINDS[kind].module}")
    library = import_module(f"{__name__}.library")
    return [library, scorer] if hasattr(scorer, "SharedLibrary") else [scorer]
