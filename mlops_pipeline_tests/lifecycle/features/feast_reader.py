"""Feast, in a process of its own: one JSON request a line in, one JSON answer a line out.

    {"cli": [...]}                                       the `feast` command
    {"history": FOLDER, "features", "pairs", "out"}      point-in-time join, Parquet to Parquet
    {"online": FOLDER, "features", "entities"}           online read, answered as columns

Importing Feast takes seconds, so that one process serves every test; each request is answered by a
fork of it, so that none finds what another left behind. It imports nothing of ours.
"""

import contextlib
import json
import os
import sys
from typing import Any

import pyarrow.parquet as pq


def answer(request: dict[str, Any]) -> Any:
    from feast import FeatureStore
    from feast.cli.cli import cli

    if "cli" in request:
        cli.main(args=request["cli"], standalone_mode=False)
        return None
    if "history" in request:
        job = FeatureStore(repo_path=request["history"]).get_historical_features(
            entity_df=pq.read_table(request["pairs"]).to_pandas(), features=request["features"]
        )
        pq.write_table(job.to_arrow(), request["out"])
        return None
    store = FeatureStore(repo_path=request["online"])
    return store.get_online_features(
        features=request["features"], entity_rows=request["entities"]
    ).to_dict()


def main() -> None:
    import feast.cli.cli
    import feast.infra.offline_stores.duckdb  # noqa: F401 # imported once, for every fork

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with contextlib.redirect_stdout(sys.stderr):
                found = answer(json.loads(line))
            print(json.dumps(found), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)


if __name__ == "__main__":
    main()
