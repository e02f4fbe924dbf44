"""The MLflow face of a stored model: the end of its script, behind scoring.py and its scorer.

The whole script is checked by hash before a contract test runs it (contract.py).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model  # noqa: F401 # the script's last line calls it
from mlflow.pyfunc import PythonModel


class PyfuncModel(PythonModel):  # type: ignore[misc] # MLflow ships no types
    """Columns in; probability, decision and whether a person has to look out."""

    def __init__(self, of_files: Callable[[Mapping[str, str]], Any]) -> None:
        self.of_files = of_files

    def load_context(self, context: Any) -> None:
        """Read the model's text and JSON."""
        folder = Path(context.artifacts["model"])
        files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
        self.model = self.of_files(files)

    # without type hints: MLflow takes hints for a schema and warns about these
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ARG002
        """Return a frame of `probability` (0 to 1), `decision` and `needs_review`.

        Columns may be of any type of pandas that holds their values, nullable ones and categories
        too. ValueError names the columns that are not there.
        """
        import pandas as pd

        types = dict.fromkeys(self.model.attributes, "category")
        types |= {item["name"]: item["type"] for item in self.model.document["inputs"]}
        missing = [name for name in types if name not in model_input]
        if missing:
            raise ValueError(f"columns of the model are missing: {', '.join(missing)}")
        columns = {}
        for name, kind in types.items():
            values = model_input[name].astype(object)
            values = values.where(values.notna(), None if kind == "category" else np.nan)
            columns[name] = values.to_numpy(dtype=object if kind == "category" else np.float32)
        said = self.model.decide(columns)
        return pd.DataFrame(
            {
                "probability": said.probability,
                "decision": said.decision,
                "needs_review": said.needs_review,
            },
            index=model_input.index,
        )
