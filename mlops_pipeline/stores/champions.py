"""Reading the champion: which version the rollout names, and its model's text and JSON."""

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.opsdb import OpsDatabase
from mlops_pipeline.stores.registry import Registry
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline.stores.tracking import open_tracking
from mlops_pipeline.training.scoring import ScoringModel


def champion_model(
    ops: OpsDatabase, settings: Settings, use_case: UseCase
) -> tuple[int, ScoringModel]:
    """Return the champion's version and model.

    Raises
    ------
    NotFoundError
        When no version was ever accepted.
    """
    rollout = ops.champion(use_case.name)
    if rollout is None:
        raise NotFoundError(
            f"{use_case.name} has no champion",
            way_out=f"run {use_case.name}_lifecycle, and approve its version if it waits",
        )
    registry = Registry(open_tracking(settings, use_case.name), use_case.name)
    return rollout.version, registry.load(rollout.version)
