"""What every asset carries so that the UI reads like documentation: owner, tags, kinds, links."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase

DOCS = "docs/assets.md"
AssetFunction = Callable[..., Any]


def use_case_asset(
    use_case: UseCase,
    name: str,
    *,
    group: str,
    kinds: set[str],
    after: tuple[str, ...],
    description: str,
    mlflow: bool = False,
    **options: Any,
) -> Callable[[AssetFunction], dg.AssetsDefinition]:
    """Return the decorator of one asset of a use case.

    Parameters
    ----------
    after : tuple of str
        Assets of the same use case that come before.
    mlflow : bool
        Whether it needs the use case's MLflow run.
    options
        Further arguments of `dagster.asset`.
    """
    resources = {"platform", *([f"mlflow_{use_case.name}"] if mlflow else [])}
    owner = use_case.owner
    decorator: Callable[[AssetFunction], dg.AssetsDefinition] = dg.asset(
        name=name,
        key_prefix=[use_case.name],
        group_name=f"{use_case.name}_{group}",
        kinds=kinds,
        owners=[owner] if "@" in owner else [f"team:{_slug(owner)}"],
        tags={"use_case": use_case.name, "stage": group},
        description=f"{description}\n\n*{use_case.description.strip()}*",
        metadata={"docs": dg.MetadataValue.path(f"{DOCS}#{name}")},
        deps=[dg.AssetKey([use_case.name, item]) for item in after],
        required_resource_keys=resources,
        **options,
    )
    return decorator


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")
