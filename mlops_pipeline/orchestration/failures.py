"""Failures as Dagster may store them: without the values that libraries quote in their messages."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlops_pipeline.errors import MlopsError, masked

# what these say is about code, files and Dagster, never about a row
HARMLESS = (MlopsError, AttributeError, ImportError, NameError, NotImplementedError, OSError)


@contextmanager
def without_values() -> Iterator[None]:
    """Let errors pass with their traceback, and without their causes and the values they quote.

    DuckDB, Arrow, pandas and NumPy name the value that they cannot convert, and Dagster stores an
    error with all of its causes in its log, where nothing is erased.

    Raises
    ------
    MlopsError
        In the place of an error of a library, naming its type.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 # raised again, whatever it is
        shown: Exception = error
        if not isinstance(error, HARMLESS) and not type(error).__module__.startswith("dagster"):
            shown = MlopsError(
                f"an error that was not expected: {type(error).__name__}",
                found=masked(str(error)),
                way_out="the traceback of the run names the place; report it with the run's log",
            )
        raise shown.with_traceback(error.__traceback__) from None
