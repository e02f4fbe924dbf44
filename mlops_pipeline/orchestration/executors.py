"""The executor of every job: in-process by default, multiprocess by run config.

In-process starts once and imports each heavy library once. For steps in processes of their own:

    execution: {config: {multiprocess: {max_concurrent: 2}}}
"""

from typing import Any

import dagster as dg

_MODES = dg.Selector(  # type: ignore[no-untyped-call] # it has no annotation
    {
        "in_process": dg.in_process_executor.config_schema.as_field(),
        "multiprocess": dg.multiprocess_executor.config_schema.as_field(),
    }
)


def _chosen(mode: dict[str, Any]) -> dict[str, Any]:
    return mode


# A fixed configuration would be the end of it: run config could not choose the other mode.
lifecycle_executor = dg.multi_or_in_process_executor.configured(
    _chosen,
    name="in_process_by_default",
    config_schema=dg.Field(_MODES, default_value={"in_process": {}}),
)
