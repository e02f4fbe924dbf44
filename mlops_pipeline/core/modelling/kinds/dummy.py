"""The base rate for everyone."""

import numpy as np

from mlops_pipeline.core.modelling.fitting import Contributions, Fitted, Fitting, Inputs
from mlops_pipeline.core.modelling.scoring import Matrix, ScoringModel, logit

FRAMEWORK = "numpy"
REQUIREMENTS = ()


def prepare(_inputs: Inputs, _matrix: Matrix) -> None:
    """Nothing is prepared."""


def fit(fitting: Fitting) -> Fitted:
    """Take the rate of the training part."""
    base = float(np.average(fitting.train.label, weights=fitting.train.weight))
    return Fitted(fitting.name, fitting.model(base_rate=base))


def explain(model: ScoringModel, matrix: Matrix) -> Contributions:
    """Return zeros: no input counts."""
    base = float(logit(np.array([model.document["base_rate"]]))[0])
    return Contributions(np.zeros(matrix.shape), base)
