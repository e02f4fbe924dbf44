"""XGBoost's JSON, scored by its shared library."""

import ctypes
import json
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlops_pipeline.core.modelling.scorers.library import SharedLibrary
from mlops_pipeline.core.modelling.scoring import Floats, Matrix, sigmoid

BOOSTER_JSON = "booster.json"
LOG_ODDS, CONTRIBUTIONS = 1, 2  # as XGBoost's c_api.h numbers them
LIBRARY = SharedLibrary(
    "xgboost",
    {"win32": "xgboost.dll", "darwin": "libxgboost.dylib", None: "libxgboost.so"},
    "XGBGetLastError",
)


class Boosted:
    """A loaded booster. XGBoost sums in single precision; its margin is the log-odds."""

    def __init__(self, text: str, *, threads: int = 0) -> None:
        self._text, self._handle, data = text, ctypes.c_void_p(), text.encode()
        LIBRARY.call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(self._handle))
        weakref.finalize(self, LIBRARY.loaded.XGBoosterFree, self._handle)
        size = ctypes.c_uint64(len(data))
        LIBRARY.call("XGBoosterLoadModelFromBuffer", self._handle, data, size)
        if threads:
            LIBRARY.call("XGBoosterSetParam", self._handle, b"nthread", str(threads).encode())

    def scores(self, matrix: Matrix) -> Floats:
        """Return the probabilities before calibration."""
        return sigmoid(self.log_odds(matrix))

    def log_odds(self, matrix: Matrix) -> Floats:
        """Return the log-odds."""
        if len(matrix) == 0:
            return np.empty(0)
        values = np.ascontiguousarray(matrix, dtype=np.float32)
        return self._results(
            "XGBoosterPredictFromDense", _interface(values), _options(LOG_ODDS), None
        )[: len(matrix)]

    def contributions(self, matrix: Matrix) -> Floats:
        """Return each input's part of the log-odds, and in the last column the base."""
        if len(matrix) == 0:
            return np.empty((0, matrix.shape[1] + 1))
        values, data = np.ascontiguousarray(matrix, dtype=np.float32), ctypes.c_void_p()
        options = json.dumps({"missing": np.nan}).encode()
        LIBRARY.call("XGDMatrixCreateFromDense", _interface(values), options, ctypes.byref(data))
        try:
            found = self._results("XGBoosterPredictFromDMatrix", data, _options(CONTRIBUTIONS))
        finally:
            LIBRARY.call("XGDMatrixFree", data)
        return found.reshape(len(matrix), -1)

    def row(self, buffer: Matrix) -> Callable[[], float]:
        """Return a function that scores what lies in a buffer of one row, on one thread."""
        alone, (shape, dimensions, found) = Boosted(self._text, threads=1), _outputs()
        predict = LIBRARY.loaded.XGBoosterPredictFromDense
        inputs = (alone._handle, _interface(buffer), _options(LOG_ODDS), None)
        results = (ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(found))

        def score() -> float:
            if predict(*inputs, *results) != 0:
                raise LIBRARY.error()
            return float(np.exp(-np.logaddexp(0.0, -found[0])))

        score.kept = (alone, buffer)  # type: ignore[attr-defined] # what its pointers point to
        return score

    def _results(self, name: str, *inputs: Any) -> Floats:
        shape, dimensions, found = _outputs()
        LIBRARY.call(
            name,
            *(self._handle, *inputs, ctypes.byref(shape)),
            *(ctypes.byref(dimensions), ctypes.byref(found)),
        )
        count = int(np.prod([shape[axis] for axis in range(dimensions.value)]))
        return np.ctypeslib.as_array(found, (count,)).astype(np.float64)


def _outputs() -> tuple[Any, Any, Any]:
    """Return where a prediction's shape, number of dimensions and values are written."""
    return (ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_float)())


def _interface(values: Matrix) -> bytes:
    where = {"data": (values.ctypes.data, True), "shape": values.shape}
    return json.dumps({**where, "typestr": "<f4", "version": 3}).encode()


def _options(what: int) -> bytes:
    trees = {"iteration_begin": 0, "iteration_end": 0}
    wanted = {"type": what, "training": False, "strict_shape": False, "missing": np.nan}
    return json.dumps({**wanted, **trees, "cache_id": 0}).encode()


def load(_: Mapping[str, Any], texts: Mapping[str, str]) -> Boosted:
    """Return the scorer of a stored model."""
    return Boosted(texts[BOOSTER_JSON])
