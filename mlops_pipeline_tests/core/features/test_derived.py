"""Derived features of rows; of tables they are tested with the frames."""

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.features.derived import derived_features
from mlops_pipeline_tests.worlds import shop


def shop_with_derived() -> UseCase:
    return shop(
        derived={
            "mean": {"expression": "spent / nullif(visits, 0)", "precision": 2},
            "is_high": {"expression": "mean > 10", "dtype": "boolean"},
            "level": {
                "expression": "case when is_high then 'high' else 'low' end",
                "dtype": "string",
            },
        }
    )


def test_derived_features_use_the_ones_above_them() -> None:
    derived = derived_features(shop_with_derived(), ("spent", "visits"))
    assert [*map(derived, [(100.0, 3), (None, 0)])] == [
        [33.33, True, "high"],
        [None, None, "low"],
    ]
