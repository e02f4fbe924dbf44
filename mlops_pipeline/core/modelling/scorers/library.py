"""A learner's shared library, called through ctypes: the functions its own package calls.

`import lightgbm` or `import xgboost` would bring pandas and scikit-learn; their libraries are found
without it. In a stored script this stands before the scorer that needs it.
"""

import ctypes
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from typing import Any


class SharedLibrary:
    """The library of a package: `files` by platform (None: any other), loaded when first used."""

    def __init__(self, package: str, files: Mapping[str | None, str], last_error: str) -> None:
        self.package, self.files, self.last_error = package, files, last_error

    @cached_property
    def loaded(self) -> ctypes.CDLL:
        """The library itself."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{self.package} is not installed: it scores this model")
        name = self.files.get(sys.platform, self.files[None])
        loaded = ctypes.CDLL(f"{spec.submodule_search_locations[0]}/lib/{name}")
        getattr(loaded, self.last_error).restype = ctypes.c_char_p
        return loaded

    @cached_property
    def undivided(self) -> ctypes.PyDLL:
        """The library for calls of microseconds: no other thread runs meanwhile."""
        return ctypes.PyDLL(self.loaded._name)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library."""
        if getattr(self.loaded, name)(*arguments) != 0:
            raise self.error()

    def error(self) -> RuntimeError:
        """Return what the library says of its last failure."""
        return RuntimeError(f"{self.package}: {getattr(self.loaded, self.last_error)().decode()}")
