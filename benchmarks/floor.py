"""The floor of benchmark (a) in a process of its own: `python -m benchmarks.floor SOURCES FOLDER`.

Hand-written features of every month up to as_of, then the candidates fitted by hand; the seconds
of each part as one line of JSON.
"""

import json
import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.floor_features import HORIZON_DAYS, write_features
from benchmarks.floor_models import fit_all, read_rows, rounded
from benchmarks.world import AS_OF, USE_CASE, grid_points
from mlops_pipeline.config import UseCase, load_use_cases


def split_points(
    use_case: UseCase, points: list[datetime]
) -> tuple[list[datetime], list[datetime]]:
    """Return the months of the train and validation parts, labels known before the next part."""
    horizon = timedelta(days=HORIZON_DAYS)
    labelled = [point for point in points if point + horizon <= points[-1]]
    test = max(1, round(use_case.split.test * len(labelled)))
    held = max(1, round(use_case.split.validation * len(labelled)))
    test_start, held_start = labelled[-test], labelled[-test - held]
    train = [point for point in labelled if point + horizon <= held_start]
    validation = [
        point for point in labelled if point >= held_start and point + horizon <= test_start
    ]
    return train, validation


def main(sources: Path, folder: Path) -> None:
    """Run the floor and print its seconds."""
    use_case = load_use_cases(Path("configs"))[USE_CASE]
    threads = os.cpu_count() or 1
    points = grid_points(str(use_case.grid.start), AS_OF)
    begun = time.perf_counter()
    rows = write_features(sources, folder, points, threads=threads)
    features = time.perf_counter() - begun
    train_points, held_points = split_points(use_case, points)
    begun = time.perf_counter()
    train = read_rows(folder, train_points, threads=threads)
    held = read_rows(folder, held_points, threads=threads)
    reading = time.perf_counter() - begun
    seconds = {"features": features, "reading": reading}
    seconds |= fit_all(use_case, train, held, threads=threads)
    counts = {"feature_rows": rows, "train": len(train.label), "validation": len(held.label)}
    print(json.dumps({"seconds": rounded(seconds), "rows": counts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
