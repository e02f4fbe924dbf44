"""What needs a whole world at full size is a campaign: the demo is no part of the product."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "demo" and "world" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.campaign)
