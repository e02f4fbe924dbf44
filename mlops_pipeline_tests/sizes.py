"""How large the tests are: as every commit runs them, or as `make campaigns` does.

@pytest.mark.sized      runs with every commit, smaller than in a campaign: `size(small, full)`
@pytest.mark.campaign   takes minutes, or real daemons: only `make campaigns` runs it
"""

import os
from typing import TypeVar

IS_FULL = os.environ.get("MLOPS_TEST_SIZE") == "full"
Size = TypeVar("Size")


def size(small: Size, full: Size) -> Size:
    """Return a number of rows, pairs or examples, or whatever else makes a test long."""
    return full if IS_FULL else small
