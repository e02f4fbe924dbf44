"""The online store: the newest values of each entity, read in well under a millisecond.

store.py is the interface, codec.py the layout of a record, sqlite.py and redis_store.py the two
stores. The database drivers stay inside this package.
"""

from mlops_pipeline.stores.online.codec import Record, RecordSchema
from mlops_pipeline.stores.online.store import (
    OnlineStore,
    OnlineTable,
    StoredEvent,
    StoredRecord,
    open_online_store,
)

__all__ = [
    "OnlineStore",
    "OnlineTable",
    "Record",
    "RecordSchema",
    "StoredEvent",
    "StoredRecord",
    "open_online_store",
]
