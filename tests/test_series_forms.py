"""Estimators on ragged and irregular series of every form, and from several threads at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statespace import MambaClassifier, S4DRegressor, SeriesCollection

SIZES = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 1, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def models():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(n, 2)) for n in (4, 9, 1, 6)]
    times = [np.cumsum(rng.exponential(size=len(x)) + 0.1) for x in X]
    X[0][1, 1] = np.nan
    regressor = S4DRegressor(**SIZES).fit(X, [x[:, 0] for x in X], times=times)
    return regressor, MambaClassifier(**SIZES).fit(X, [0, 1, 0, 1], times=times)


@st.composite
def ragged(draw):
    """Series of any length with gaps over twelve orders of magnitude, values of any size and missing ones."""
    value = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    series, times = [], []
    for n in lengths:
        series.append(np.array(draw(st.lists(st.tuples(value, value), min_size=n, max_size=n)), dtype=float))
        gaps = draw(st.lists(st.floats(-6, 6), min_size=n, max_size=n))
        times.append(np.cumsum(10.0 ** np.array(gaps)))
    return series, times


@settings(max_examples=25)
@given(data=ragged())
def test_a_series_is_answered_alike_in_every_form_and_company(models, data):
    X, times = data
    regressor, classifier = models
    answers = regressor.predict(X, times=times)
    probabilities = classifier.predict_proba(X, times=times)
    assert all(np.isfinite(row).all() for row in answers)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    frames = [pd.DataFrame(x, index=t) for x, t in zip(X, times, strict=True)]
    forms = [SeriesCollection(X, times=times), frames]
    if all((np.diff(t) > 0).all() for t in times):
        forms.append(pd.concat(dict(enumerate(frames)), names=["series", "time"]))
    for form in forms:
        for one, other in zip(regressor.predict(form), answers, strict=True):
            np.testing.assert_array_equal(one, other)
    for i, (x, t) in enumerate(zip(X, times, strict=True)):
        np.testing.assert_allclose(regressor.predict([x], times=[t])[0], answers[i], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(classifier.predict_proba([x], times=[t])[0], probabilities[i], rtol=1e-9, atol=1e-9)
        stream = regressor.stream()
        steps = [stream.step(row, dt=gap) for row, gap in zip(x, np.diff(t, prepend=0.0), strict=True)]
        np.testing.assert_allclose(steps, answers[i], rtol=1e-7, atol=1e-7)


def test_threads_that_share_an_estimator_get_the_same_bits(models):
    rng = np.random.default_rng(1)
    X = [rng.normal(size=(n, 2)) for n in (30, 200, 77)]
    times = [np.cumsum(rng.exponential(size=len(x)) + 0.1) for x in X]
    for model, method in zip(models, ("predict", "predict_proba"), strict=True):
        alone = getattr(model, method)(X, times=times)

        def work(_, model=model, method=method):
            stream = model.stream()
            stream.step(X[0][0])
            return getattr(model, method)(X, times=times), stream.step(X[0][1], dt=0.5)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(work, range(32)))
        for together, step in answers:
            np.testing.assert_array_equal(step, answers[0][1])
            for one, other in zip(together, alone, strict=True):
                np.testing.assert_array_equal(one, other)
