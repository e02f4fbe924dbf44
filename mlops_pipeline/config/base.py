"""Types that configuration sections share: names, fractions, days, parsed expressions."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mlops_pipeline.spec.grammar import Node, parse


def _checked(text: str) -> str:
    parse(text)
    return text


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Expression = Annotated[str, AfterValidator(_checked)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=0, le=36_500)]


def tree(expression: str) -> Node:
    """Return the parsed tree of a configured expression."""
    return parse(expression)
