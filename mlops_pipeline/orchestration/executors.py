"""The executor of every job: in-process by default, multiprocess by run config.

In-process starts once and imports each heavy library once. For steps in processes of their own:

    execution: {config: {multiprocess: {max_concurrent: 2}}}
"""

import dagster as dg

lifecycle_executor = dg.multi_or_in_process_executor.configured(
    {"in_process": {}}, name="in_process_by_default"
)
