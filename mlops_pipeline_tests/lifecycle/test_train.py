"""A training that is read again is the one that its pointer names, byte for byte."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlops_pipeline.errors import ModelFilesError
from mlops_pipeline.lifecycle.train import TrainedModel, read_training
from mlops_pipeline.stores.models.files import pinned_digests, write_files
from mlops_pipeline_tests.core.modelling.example_models import fitted
from mlops_pipeline_tests.worlds import NOW


@pytest.mark.parametrize("name", ["training.json", "train_sample.parquet", "model/model.json"])
def test_training_with_a_file_edited_since_is_refused(name: str, tmp_path: Path) -> None:
    write_files(tmp_path / "model", fitted("logistic").files)
    (tmp_path / "training.json").write_text("{}")
    (tmp_path / "train_sample.parquet").write_bytes(b"PAR1")
    trained = TrainedModel("f1", tmp_path, NOW, "m", {}, pinned_digests(tmp_path))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b" ")
    with pytest.raises(ModelFilesError, match=name) as caught:
        read_training(trained)
    assert "materialize trained_model again" in str(caught.value)
    with pytest.raises(ModelFilesError):
        read_training(replace(trained, files={}))
