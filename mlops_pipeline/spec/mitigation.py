"""MITIGATIONS: the methods that a configuration can name, and where each comes from.

A method is a line here and core/mitigation/methods/<name>.py.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from mlops_pipeline.spec.section import OneOf

MITIGATIONS: Mapping[str, str] = MappingProxyType(
    {
        "reweighing": "Kamiran & Calders 2012",
        "group_thresholds": "Hardt, Price & Srebro 2016; Chzhen et al. 2020; Denis et al. 2021",
        "grid_search": "Agarwal et al. 2018, section 3.4",
    }
)
MethodName = Annotated[str, OneOf(tuple(MITIGATIONS))]
