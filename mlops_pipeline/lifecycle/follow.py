"""Doing something again and again beside the work: following the ledger, writing what piled up."""

import logging
import threading
from collections.abc import Callable

from mlops_pipeline.stores import Closing

FOLLOW_SECONDS = 0.5  # every process goes by what the ledger says within two seconds

logger = logging.getLogger(__name__)


class Repeating(Closing):
    """A thread that calls a function every so many seconds until it is closed.

    What it raises is logged behind `failure`, and the function is called again.
    """

    def __init__(
        self, call: Callable[[], object], failure: str, *, seconds: float = FOLLOW_SECONDS
    ) -> None:
        self._call, self._failure, self._seconds = call, failure, seconds
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=failure, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the call that is under way; there is no other."""
        self._ending.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._ending.wait(self._seconds):
            try:
                self._call()
            except Exception:
                logger.exception(self._failure)
