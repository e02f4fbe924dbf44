"""XGBoost's JSON, scored by its shared library through ctypes.

`import xgboost` would bring pandas and scikit-learn; its library is found without it.
"""

import ctypes
import json
import sys
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

BOOSTER_JSON = "booster.json"
LOG_ODDS, CONTRIBUTIONS = 1, 2  # as XGBoost's c_api.h numbers them
LIBRARY = {"win32": "xgboost.dll", "darwin": "libxgboost.dylib"}


class Boosted:
    """A loaded booster. XGBoost sums in single precision; its margin is the log-odds."""

    def __init__(self, text: str, *, threads: int = 0) -> None:
        self._text, self._handle, data = text, ctypes.c_void_p(), text.encode()
        call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(self._handle))
        weakref.finalize(self, library().XGBoosterFree, self._handle)
        call("XGBoosterLoadModelFromBuffer", self._handle, data, ctypes.c_uint64(len(data)))
        if threads:
            call("XGBoosterSetParam", self._handle, b"nthread", str(threads).encode())

    def scores(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the probabilities before calibration."""
        return np.exp(-np.logaddexp(0.0, -self.log_odds(matrix)))

    def log_odds(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the log-odds."""
        if len(matrix) == 0:
            return np.empty(0)
        values = np.ascontiguousarray(matrix, dtype=np.float32)
        return self._results(
            "XGBoosterPredictFromDense", _interface(values), _options(LOG_ODDS), None
        )[: len(matrix)]

    def contributions(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return each input's part of the log-odds, and in the last column the base."""
        if len(matrix) == 0:
            return np.empty((0, matrix.shape[1] + 1))
        values, data = np.ascontiguousarray(matrix, dtype=np.float32), ctypes.c_void_p()
        options = json.dumps({"missing": np.nan}).encode()
        call("XGDMatrixCreateFromDense", _interface(values), options, ctypes.byref(data))
        try:
            found = self._results("XGBoosterPredictFromDMatrix", data, _options(CONTRIBUTIONS))
        finally:
            call("XGDMatrixFree", data)
        return found.reshape(len(matrix), -1)

    def row(self, buffer: npt.NDArray[np.float32]) -> Callable[[], float]:
        """Return a function that scores what lies in a buffer of one row, on one thread."""
        alone, shape, dimensions, found = Boosted(self._text, threads=1), *_places()
        predict = library().XGBoosterPredictFromDense
        inputs = (alone._handle, _interface(buffer), _options(LOG_ODDS), None)
        results = (ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(found))

        def score() -> float:
            if predict(*inputs, *results) != 0:
                raise RuntimeError(_said())
            return float(np.exp(-np.logaddexp(0.0, -found[0])))

        score.kept = (alone, buffer)  # type: ignore[attr-defined] # what its pointers point to
        return score

    def _results(self, name: str, *inputs: Any) -> npt.NDArray[np.float64]:
        shape, dimensions, found = _places()
        call(
            name,
            *(self._handle, *inputs, ctypes.byref(shape)),
            *(ctypes.byref(dimensions), ctypes.byref(found)),
        )
        count = int(np.prod([shape[axis] for axis in range(dimensions.value)]))
        return np.ctypeslib.as_array(found, (count,)).astype(np.float64)


def _places() -> tuple[Any, Any, Any]:
    """Return where a prediction's shape, number of dimensions and values are told."""
    return (
        ctypes.POINTER(ctypes.c_uint64)(),
        ctypes.c_uint64(),
        ctypes.POINTER(ctypes.c_float)(),
    )


def _interface(values: npt.NDArray[np.float32]) -> bytes:
    where = {"data": (values.ctypes.data, True), "shape": values.shape}
    return json.dumps({**where, "typestr": "<f4", "version": 3}).encode()


def _options(what: int) -> bytes:
    trees = {"iteration_begin": 0, "iteration_end": 0}
    said = {"type": what, "training": False, "strict_shape": False, "missing": np.nan}
    return json.dumps({**said, **trees, "cache_id": 0}).encode()


@cache
def library() -> ctypes.CDLL:
    """Return XGBoost's shared library."""
    spec = find_spec("xgboost")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("xgboost is not installed: it scores this model")
    name = LIBRARY.get(sys.platform, "libxgboost.so")
    loaded = ctypes.CDLL(f"{spec.submodule_search_locations[0]}/lib/{name}")
    loaded.XGBGetLastError.restype = ctypes.c_char_p
    return loaded


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library; its error is ours."""
    if getattr(library(), name)(*arguments) != 0:
        raise RuntimeError(_said())


def _said() -> str:
    return f"XGBoost: {library().XGBGetLastError().decode()}"


def load(_: Mapping[str, Any], texts: Mapping[str, str]) -> Boosted:
    """Return the scorer of a stored model."""
    return Boosted(texts[BOOSTER_JSON])
