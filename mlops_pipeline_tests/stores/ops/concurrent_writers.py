"""Several connections that do something at the same moment."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mlops_pipeline.errors import MlopsError
from mlops_pipeline.stores.ops import OpsDatabase

Result = TypeVar("Result")


def run_at_once(
    url: str, actions: Sequence[Callable[[OpsDatabase], Result]]
) -> list[Result | MlopsError]:
    barrier = threading.Barrier(len(actions))

    def run(action: Callable[[OpsDatabase], Result]) -> Result | MlopsError:
        with OpsDatabase.open(url) as database:
            barrier.wait(timeout=20)
            try:
                return action(database)
            except MlopsError as error:
                return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))
