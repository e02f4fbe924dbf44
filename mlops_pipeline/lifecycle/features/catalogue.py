"""The feature catalogue: what features there are, whose, how fresh, and who uses them.

What a model needs is read from the documents of its version in the lake: nothing here asks MLflow,
which takes seconds to import. A version is live while its rollout is champion, challenger or
previous, or while it is registered and not yet deployed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mlops_pipeline.config.tables import DerivedFeature, FeatureColumn
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ConfigError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import feature_uses, get_pointer
from mlops_pipeline.lifecycle.rollouts import list_rollouts
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.mlflow import ALIASES
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

UNUSED_DAYS = 90


@dataclass(frozen=True)
class ModelInputs:
    """A model version, the role it has now (an alias, or the state of its rollout), its inputs."""

    version: int
    role: str
    is_live: bool
    inputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """How it is shown: `3 (champion)`."""
        return f"{self.version} ({self.role})"


@dataclass(frozen=True)
class FeatureEntry:
    """One feature as the catalogue lists it."""

    name: str
    type: str
    owner: str
    description: str
    view: str | None  # None for a derived feature
    refresh: str  # the grid's step, or `continuous`, `daily`, `request_time` or `derived`
    freshness_days: float | None  # of a derived feature that of its oldest input
    online: bool
    deprecated: bool
    live_models: tuple[str, ...] = ()
    other_models: tuple[str, ...] = ()
    computed_since: datetime | None = None
    last_used_at: datetime | None = None  # by a training, batch scoring or online read


def catalog(use_case: UseCase, settings: Settings) -> list[FeatureEntry]:
    """Return every feature of a use case, in the order of the configuration."""
    with OpsDatabase.open(settings.database_url) as ops:
        models = model_inputs(ops, Lake(settings.lake_uri), use_case)
        uses = feature_uses(ops, use_case.name)
    computed = {use.feature: use.first_used_at for use in uses if use.reader == "computation"}
    read: dict[str, datetime] = {}
    for use in uses:
        if use.reader != "computation":
            read[use.feature] = max(use.last_used_at, read.get(use.feature, use.last_used_at))
    entries: dict[str, FeatureEntry] = {}

    def add(name: str, item: FeatureColumn | DerivedFeature, **about: Any) -> None:
        users = [model for model in models if name in model.inputs]
        entries[name] = FeatureEntry(
            name=f"{use_case.entity.name}:{name}",
            type=item.dtype,
            description=item.description,
            deprecated=item.deprecated,
            live_models=tuple(model.label for model in users if model.is_live),
            other_models=tuple(model.label for model in users if not model.is_live),
            computed_since=computed.get(name),
            last_used_at=read.get(name),
            **about,
        )

    for label, view in use_case.views.items():
        refresh = view.refresh if use_case.grid.every == "event" else use_case.grid.every
        for name, column in view.columns.items():
            add(
                name,
                column,
                owner=view.owner or use_case.owner,
                view=label,
                refresh="request_time" if view.request_time else refresh,
                freshness_days=view.freshness_days,
                online=view.online,
            )
    for name, derived in use_case.derived.items():
        inputs = [entries[item] for item in derived.expression.columns]
        fresh = [item.freshness_days for item in inputs if item.freshness_days is not None]
        add(
            name,
            derived,
            owner=use_case.owner,
            view=None,
            refresh="derived",
            freshness_days=min(fresh, default=None),
            online=all(item.online for item in inputs),
        )
    return list(entries.values())


def unused_features(
    entries: Iterable[FeatureEntry], now: datetime, days: int = UNUSED_DAYS
) -> list[FeatureEntry]:
    """Return features to deprecate: no live model needs one, and nobody read it for `days`."""
    before = now - timedelta(days=days)
    return [
        entry
        for entry in entries
        if not (entry.deprecated or entry.live_models)
        and (used_at := entry.last_used_at or entry.computed_since) is not None
        and used_at < before
    ]


def model_inputs(ops: OpsDatabase, lake: Lake, use_case: UseCase) -> list[ModelInputs]:
    """Return the inputs of the model versions, the highest first; live ones must have documents."""
    roles: dict[int, tuple[str | None, str, str]] = {
        item.version: (ALIASES.get(item.state), item.state, item.fingerprint)
        for item in list_rollouts(ops, use_case.name)
    }
    registered = get_pointer(ops, use_case.name, "registry")
    if registered is not None:  # between registry_entry and deployment there is no rollout yet
        version, fingerprint = int(registered.value["version"]), registered.value["fingerprint"]
        roles.setdefault(version, ("challenger", "registered", str(fingerprint)))
    found = []
    for version, (alias, state, fingerprint) in sorted(roles.items(), reverse=True):
        path = lake.documents_folder(use_case.name, fingerprint) / "metadata.json"
        if path.is_file():
            document = json.loads(path.read_text(encoding="utf-8"))
            inputs = tuple(item["name"] for item in document["signature"]["inputs"])
            found.append(ModelInputs(version, alias or state, alias is not None, inputs))
        elif alias is not None:
            raise NotFoundError(
                f"the documents of version {version} of {use_case.name} ({alias}) are gone",
                where=str(path),
                way_out="restore the folder from a backup, or deploy another version first",
            )
    return found


def refuse_deleted_features(use_case: UseCase, models: Sequence[ModelInputs]) -> None:
    """Refuse a configuration without a feature that a live model needs."""
    present = {*use_case.features, *use_case.protected}
    missing: dict[str, list[str]] = {}
    for model in models:
        for name in model.inputs:
            if model.is_live and name not in present:
                missing.setdefault(name, []).append(model.label)
    if missing:
        raise ConfigError(
            "a feature that a live model uses is not in the configuration",
            where=f"configs/{use_case.name}.yaml",
            expected=", ".join(f"{use_case.entity.name}:{name}" for name in missing),
            found="; ".join(
                f"{name} is an input of {use_case.name} version {' and '.join(labels)}"
                for name, labels in missing.items()
            ),
            way_out=f"put {next(iter(missing))} back with `deprecated: true`: it is still "
            "computed, and no input of new models; take it out when no champion, challenger or "
            "previous uses it",
        )


def check_live_models(use_case: UseCase, settings: Settings) -> None:
    """Hold a configuration against the models of the ops database, where there is one."""
    file = settings.database_url.removeprefix("sqlite:///")
    if file == settings.database_url or Path(file).exists():
        with OpsDatabase.open(settings.database_url) as ops:
            refuse_deleted_features(use_case, model_inputs(ops, Lake(settings.lake_uri), use_case))
