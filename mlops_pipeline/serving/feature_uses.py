"""Which features are read online: told to the catalogue once a day for each, not at every read."""

import threading
from collections.abc import Iterable
from datetime import date

from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings


class FeatureUses:
    """Remembers what was told today; may be shared by threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._day: date | None = None
        self._told: set[tuple[str, str]] = set()

    def untold(self, use_case: str, names: Iterable[str]) -> list[str]:
        """Return the features not told of today; from now on they count as told."""
        today = self._settings.now().date()
        with self._lock:
            if today != self._day:
                self._day, self._told = today, set()
            found = [name for name in names if (use_case, name) not in self._told]
            self._told.update((use_case, name) for name in found)
        return found

    def tell(self, use_case: str, names: list[str]) -> None:
        """Note the use in the ops database."""
        with OpsDatabase.open(self._settings.database_url) as ops:
            record_feature_use(ops, use_case, names, "online", now=self._settings.now())
