"""Dagster's own state, as `dagster.yaml` names it: below the data folder, for its owner only.

Every process of Dagster opens its instance: what each makes from then on is private.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from mlops_pipeline.stores.settings import Settings, keep_private


class _BelowDataFolder:
    """What Dagster makes of its configuration, in a folder that the settings name."""

    place = Path("dagster")

    @classmethod
    def config_type(cls) -> dict[str, object]:
        """Return the keys that it takes: none."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]
    ) -> Any:
        """Open the storage; its folder is made."""
        keep_private()
        folder = Settings.from_environment().data_dir / cls.place
        folder.mkdir(parents=True, exist_ok=True)
        make: Any = cls
        return make(base_dir=str(folder), inst_data=inst_data, **config_value)


class Runs(_BelowDataFolder, DagsterSqliteStorage):
    """Runs, events and schedules."""


class Artifacts(_BelowDataFolder, LocalArtifactStorage):
    """Files of Dagster's own."""


class Logs(_BelowDataFolder, LocalComputeLogManager):
    """What steps print."""

    place = Path("dagster", "logs")
