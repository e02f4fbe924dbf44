"""LightGBM's text, scored by its shared library."""

import ctypes
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlops_pipeline.core.modelling.scorers.library import SharedLibrary
from mlops_pipeline.core.modelling.scoring import Floats, Matrix

MODEL_TEXT = "model.txt"
PROBABILITY, LOG_ODDS, CONTRIBUTIONS = 0, 1, 3  # as LightGBM's c_api.h numbers them
FLOAT32, ALL_TREES = 0, -1
LIBRARY = SharedLibrary(
    "lightgbm",
    {"win32": "lib_lightgbm.dll", "darwin": "lib_lightgbm.dylib", None: "lib_lightgbm.so"},
    "LGBM_GetLastError",
)


class Trees:
    """A loaded booster: boosted trees, or the mean of a forest's."""

    def __init__(self, document: Mapping[str, Any], text: str) -> None:
        self.width = len(document["inputs"])
        self._handle, count = ctypes.c_void_p(), ctypes.c_int()
        LIBRARY.call(
            "LGBM_BoosterLoadModelFromString",
            *(text.encode(), ctypes.byref(count), ctypes.byref(self._handle)),
        )
        weakref.finalize(self, LIBRARY.loaded.LGBM_BoosterFree, self._handle)
        # LightGBM sums a forest's trees; its probability is that of their mean
        self._divisor = count.value if document["kind"] == "random_forest" else 1

    def scores(self, matrix: Matrix) -> Floats:
        """Return the probabilities before calibration."""
        return self._predict(matrix, PROBABILITY, 1)[:, 0]

    def log_odds(self, matrix: Matrix) -> Floats:
        """Return the log-odds."""
        return self._predict(matrix, LOG_ODDS, 1)[:, 0] / self._divisor

    def contributions(self, matrix: Matrix, *, threads: int = 0) -> Floats:
        """Return each input's part of the log-odds, and in the last column the base; 0: all."""
        found = self._predict(matrix, CONTRIBUTIONS, self.width + 1, f"num_threads={threads}")
        return found / self._divisor

    def row(self, buffer: Matrix) -> Callable[[], float]:
        """Return a function that scores what lies in a buffer of one row, on one thread."""
        config, found, length = ctypes.c_void_p(), ctypes.c_double(), ctypes.c_int64()
        LIBRARY.call(
            "LGBM_BoosterPredictForMatSingleRowFastInit",
            *(self._handle, PROBABILITY, 0, ALL_TREES, FLOAT32, self.width),
            *(b"num_threads=1", ctypes.byref(config)),
        )
        predict = LIBRARY.undivided.LGBM_BoosterPredictForMatSingleRowFast
        inputs = (config, ctypes.c_void_p(buffer.ctypes.data))
        results = (ctypes.byref(length), ctypes.byref(found))

        def score() -> float:
            if predict(*inputs, *results) != 0:
                raise LIBRARY.error()
            return found.value

        weakref.finalize(score, LIBRARY.loaded.LGBM_FastConfigFree, config)
        score.kept = (self, buffer)  # type: ignore[attr-defined] # what its pointers point to
        return score

    def _predict(self, matrix: Matrix, what: int, columns: int, options: str = "") -> Floats:
        found = np.empty((len(matrix), columns))
        if len(matrix) == 0:
            return found
        by_column = matrix.flags.f_contiguous
        values = np.asarray(matrix, dtype=np.float32, order="F" if by_column else "C")
        LIBRARY.call(
            "LGBM_BoosterPredictForMat",
            *(self._handle, ctypes.c_void_p(values.ctypes.data), FLOAT32, *map(int, values.shape)),
            *(int(not by_column), what, 0, ALL_TREES, options.encode()),
            *(ctypes.byref(ctypes.c_int64()), ctypes.c_void_p(found.ctypes.data)),
        )
        return found


def load(document: Mapping[str, Any], texts: Mapping[str, str]) -> Trees:
    """Return the scorer of a stored model."""
    return Trees(document, texts[MODEL_TEXT])
