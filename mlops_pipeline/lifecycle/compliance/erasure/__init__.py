"""Erasing one person from every store of the use cases that know the entity.

tables.py   the tables of the lake, and the accepted pointer
others.py   the online store, MLflow, the delivered files
run.py      the order of it all: tombstone, lake, online store, MLflow
"""

from mlops_pipeline.lifecycle.compliance.erasure.run import (
    Erased,
    Found,
    Person,
    find,
    forget,
    person_of,
)

__all__ = ["Erased", "Found", "Person", "find", "forget", "person_of"]
