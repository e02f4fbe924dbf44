"""What every configuration section is: frozen, and without unknown keys.

Parameter models of the tables (kinds, gate rules, ...) are sections too, and stand in spec.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
