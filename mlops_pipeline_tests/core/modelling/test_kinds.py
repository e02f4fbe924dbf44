"""What every model kind promises, held for each line of the table."""

import numpy as np
import pytest

from mlops_pipeline.core.modelling.explanations import explain
from mlops_pipeline.core.modelling.fitting import Fitting, Rows, encode_rows, learn_inputs
from mlops_pipeline.core.modelling.row_scorer import RowScorer
from mlops_pipeline.core.modelling.scoring import ScoringModel, logit
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.spec.kinds import KINDS, XGBoost
from mlops_pipeline_tests.core.modelling.example_models import NAMES, RECIPES, fitted, frame

TREES = ["lightgbm", "random_forest", "xgboost"]
BOOSTED = ["lightgbm", "xgboost"]


def test_every_kind_of_the_table_is_held_to_its_promises() -> None:
    assert set(RECIPES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_fitted_stored_read_again_scored_and_explained(kind: str) -> None:
    model = fitted(kind)
    again = ScoringModel.of_files(dict(fitted(kind).files))
    assert again.files == model.files  # a second fit, and a reading of it: the same bytes
    columns = frame().columns
    many = model.predict(columns)
    np.testing.assert_array_equal(again.predict(columns), many)
    scorer = RowScorer(again)
    one = [scorer({name: values[row] for name, values in columns.items()}) for row in range(99)]
    np.testing.assert_array_equal([said.probability for said in one], many[:99])
    found = explain(again, columns)
    expected = logit(model.raw_scores(model.encode(columns)))
    np.testing.assert_allclose(found.base + found.values.sum(axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_gives_the_same_bytes_on_any_number_of_threads(kind: str) -> None:
    rows, data = np.arange(1_000), frame()
    inputs = learn_inputs(data.columns, NAMES, rows)
    parameters = KINDS[kind].parameters.model_validate({"kind": kind, **RECIPES[kind]})
    part = Rows(encode_rows(inputs, data.columns, rows), data.label[rows])
    held = Rows(encode_rows(inputs, data.columns, np.arange(1_000, 1_500)), data.label[1_000:])
    found = [
        Fitting(
            *(kind, parameters, inputs, part, held), balanced=True, seed=3, threads=threads
        ).fit()
        for threads in (1, 2, 3)
    ]
    assert found[0].model.files == found[1].model.files == found[2].model.files
    assert set(found[0].curves) == ({"train", "validation"} if kind in TREES else set())


@pytest.mark.parametrize("kind", BOOSTED)
def test_boosting_stops_early_and_a_refit_keeps_the_tree_count(kind: str) -> None:
    rows, data = np.arange(1_000), frame()
    inputs = learn_inputs(data.columns, NAMES, rows)
    options = {**RECIPES[kind], "trees": 400, "early_stopping_rounds": 5}
    parameters = KINDS[kind].parameters.model_validate({"kind": kind, **options})
    part = Rows(encode_rows(inputs, data.columns, rows), data.label[rows])
    held = Rows(encode_rows(inputs, data.columns, np.arange(1_000, 1_500)), data.label[1_000:])
    stopped = Fitting(
        *(kind, parameters, inputs, part, held), balanced=False, seed=3, threads=1
    ).fit()
    assert stopped.trees is not None
    assert 1 <= stopped.trees < 400
    assert int(np.argmin(stopped.curves["validation"])) + 1 == stopped.trees
    again = Fitting(
        *(kind, parameters.fixed(stopped.trees), inputs, part, None),
        balanced=False,
        seed=3,
        threads=1,
    ).fit()
    columns = data.columns
    np.testing.assert_array_equal(again.model.predict(columns), stopped.model.predict(columns))


@pytest.mark.parametrize("kind", TREES)
def test_monotone_trees_keep_to_the_declared_direction(kind: str) -> None:
    model = fitted(kind, directions={"tickets": "increasing"}, monotone=True)
    rows = np.repeat(model.encode(frame().columns)[:50], 6, axis=0)
    rows[:, NAMES.index("tickets")] = np.tile(np.arange(6), 50)
    scores = model.log_odds(np.asfortranarray(rows)).reshape(50, 6)
    assert (np.diff(scores, axis=1) >= 0).all()
    free = fitted(kind).log_odds(np.asfortranarray(rows)).reshape(50, 6)
    assert (np.diff(free, axis=1) < 0).any()


def test_xgboost_scores_and_explains_as_its_own_package_does() -> None:
    xgboost = pytest.importorskip("xgboost")
    model = fitted("xgboost")
    matrix = model.encode(frame().columns)
    booster = xgboost.Booster()
    booster.load_model(bytearray(model.texts["booster.json"].encode()))
    data = xgboost.DMatrix(matrix, feature_types=["q", "q", "c", "q"], enable_categorical=True)
    theirs = booster.predict(data, output_margin=True).astype(np.float64)
    np.testing.assert_array_equal(model.log_odds(matrix), theirs)
    theirs = booster.predict(data, pred_contribs=True).astype(np.float64)
    found = explain(model, frame().columns)
    np.testing.assert_array_equal(found.values, theirs[:, :-1])
    assert found.base == theirs[0, -1]
    assert np.isnan(matrix).any()


def test_xgboost_class_weight_balances_the_classes() -> None:
    rows, data = np.arange(1_000), frame()
    inputs = learn_inputs(data.columns, NAMES, rows)
    part = Rows(encode_rows(inputs, data.columns, rows), data.label[rows])
    parameters = XGBoost(kind="xgboost", trees=60, learning_rate=0.2)
    plain, balanced = (
        Fitting(*("x", parameters, inputs, part, None), balanced=said, seed=3, threads=1).fit()
        for said in (False, True)
    )
    means = [item.model.raw_scores(part.matrix).mean() for item in (plain, balanced)]
    assert means[0] == pytest.approx(data.label[rows].mean(), abs=0.02)
    assert abs(means[1] - 0.5) < abs(means[0] - 0.5)


def test_model_of_an_unknown_kind_is_named() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'lightgbm'"):
        ScoringModel({"kind": "lightgmb", "inputs": []}).raw_scores(np.empty((1, 0), np.float32))
