"""What the log holds of a service's answers during a rollout, in order of time, as an Arrow table.

Belongs here: the query. Which version said what is lifecycle/live_pairs.py's.
"""

from typing import Any

from sqlalchemy import select

from mlops_pipeline.stores.log_tables import PREDICTION, SHADOW
from mlops_pipeline.stores.predictions import PredictionLog

ROWS_AT_ONCE = 50_000  # as objects, in memory
ANSWER = ("entity", "at_us", "model_version", "probability", "decision", "latency_us")
OTHER = ("version", "probability", "decision", "is_default", "failure", "latency_us")


def answers_between(
    log: PredictionLog, use_case: str, times_us: tuple[int, int], *, but: str
) -> Any:
    """Return the answers from a time until another: ANSWER, and `other_` OTHER of the shadow.

    Those of the caller `but` are left out. An id begins with its time: a range of ids is one of
    times.
    """
    import pyarrow as pa

    kinds = {"version": pa.int64(), "at_us": pa.int64(), "latency_us": pa.int64(),
             "probability": pa.float64(), "decision": pa.bool_(), "is_default": pa.bool_(),
             "model_version": pa.int64()}  # fmt: skip
    names = [*ANSWER, *(f"other_{name}" for name in OTHER)]
    schema = pa.schema(
        [(name, kinds.get(name.removeprefix("other_"), pa.string())) for name in names]
    )
    query = (
        select(*(PREDICTION.c[name] for name in ANSWER), *(SHADOW.c[name] for name in OTHER))
        .join_from(PREDICTION, SHADOW, SHADOW.c.prediction_id == PREDICTION.c.id, isouter=True)
        .where(
            PREDICTION.c.use_case == use_case,
            *(PREDICTION.c.id >= f"{times_us[0]:014x}", PREDICTION.c.id < f"{times_us[1]:014x}"),
            PREDICTION.c.caller != but,
        )
        .order_by(PREDICTION.c.id)
    )
    batches = []
    with log.transaction() as connection:
        found = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query)
        for rows in found.partitions():
            columns = zip(*(tuple(row) for row in rows), strict=True)
            arrays = [
                pa.array(each, field.type) for each, field in zip(columns, schema, strict=True)
            ]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema)
