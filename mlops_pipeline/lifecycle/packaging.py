"""What is stored of a model for those who do not have this project: script, packages, framework."""

from importlib.metadata import packages_distributions
from importlib.metadata import version as installed_version
from pathlib import Path
from types import ModuleType

from mlops_pipeline.core.modelling import scorers, scoring
from mlops_pipeline.core.modelling.example import column_types
from mlops_pipeline.core.modelling.fitting import kind_of
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.stores.models.mlflow import Package, model_script


def packaged(model: ScoringModel) -> Package:
    """Return what plain MLflow needs to score a model."""
    names = ("mlflow", "numpy", "pandas", *kind_of(model.kind).REQUIREMENTS)
    return Package(
        files=model.files,
        script=model_script([_source(scoring), _source(scorers.module_of(model.kind))]),
        inputs=column_types(model),
        requirements=[f"{name}=={version}" for name, version in map(_installed, names)],
    )


def framework(model: ScoringModel) -> dict[str, str]:
    """Return name and version of what fitted a model."""
    name, version = _installed(kind_of(model.kind).FRAMEWORK)
    return {"name": name, "version": version}


def _installed(package: str) -> tuple[str, str]:
    """Return the distribution that a package is of: `sklearn` is scikit-learn's."""
    names = packages_distributions()[package]
    name = package if package in names else names[0]
    return name, installed_version(name)


def _source(module: ModuleType) -> Path:
    return Path(str(module.__file__))
