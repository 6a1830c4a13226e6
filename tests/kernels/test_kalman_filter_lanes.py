"""Records side by side in vectors: the same numbers as one after the other, in whatever company a record is."""

import platform
from importlib import import_module

import numpy as np
import pytest
import torch
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal

from statespace.kernels import threads
from statespace.kernels.kalman_filter import (
    Blocks,
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
    kalman_smoother,
)
from statespace.kernels.kalman_filter.blocks import (
    MATERN32,
    MATERN52,
    OU,
    RANDOM_WALK,
    ROTATED_MATERN32,
    ROTATED_OU,
    ROTATION,
    SIZES,
    TREND,
)
from statespace.kernels.kalman_filter.transposition import WIDTH, load
from statespace.kernels.kalman_filter.vector_blocks import decays, gammas_5, rotations
from statespace.kernels.vectors import store

lanes = import_module("statespace.kernels.kalman_filter.lanes")

MODELS = {
    "level": [(RANDOM_WALK, 0.4, 0.0, 0.0)],
    "OU": [(OU, 0.7, 1.2, 0.0)],
    "trend": [(TREND, 0.2, 0.1, 0.0)],
    "level and OU": [(RANDOM_WALK, 0.4, 0.0, 0.0), (OU, 0.7, 1.2, 0.0)],
    "rotated OU": [(ROTATED_OU, 0.3, 1.1, 2.0)],
    "Matern32": [(MATERN32, 0.9, 1.3, 0.0)],
    "Matern52": [(MATERN52, 0.9, 1.3, 0.0)],
    "seasonal": [(RANDOM_WALK, 0.2, 0.0, 0.0), (ROTATION, 1.7, 0.1, 0.0)],
    "trend and Matern32": [(TREND, 0.2, 0.1, 0.0), (MATERN32, 0.9, 1.3, 0.0)],
    "rotated Matern32": [(ROTATED_MATERN32, 0.5, 1.3, 1.1)],
}
# more than one chunk, and lanes that end at other steps than their neighbours
LENGTHS = [40, 33, 37, 40, 2, 1, 35, 38, 3, 2, 30, 3, 1, 2, 39, 36, 3, 34, 41, 70, 31, 2]


def problem(model, varying=False, lengths=LENGTHS, diffuse=True, regular=False, seed=0):
    rng = np.random.default_rng(seed)
    items = MODELS[model]
    size = np.array([SIZES.get(item[0], 1) for item in items])
    starts = np.append(0, np.cumsum(lengths))
    T, n = int(starts[-1]), int(size.sum())
    blocks = Blocks(np.array([item[0] for item in items]), size, np.array([item[1:] for item in items]))
    y = rng.normal(size=T)
    y[rng.random(T) < 0.1] = np.nan
    # no tiny gaps while a slope is found: what follows would have lost digits either way
    dt = np.ones(T) if regular else rng.uniform(0.3, 2.0, size=T)
    since = np.arange(T) - np.repeat(starts[:-1], lengths)
    dt[(since > 6) & (rng.random(T) < 0.1)] = 0.0
    h = np.concatenate([np.eye(s)[0] for s in size])
    if varying:
        h = h * rng.uniform(0.8, 1.2, size=(T, 1)) + rng.uniform(0.0, 0.1, size=(T, n))
    R = rng.uniform(0.2, 1.0, size=T) if varying else 0.3
    d = 1 if model in ("level", "level and OU", "seasonal") else 2 if model.startswith("trend") else 0
    return (y, dt, blocks, h, R, rng.normal(size=n), np.eye(n), np.eye(n)[:, :d] if diffuse and d else None), starts


@pytest.fixture
def one_by_one(monkeypatch):
    """Calls a kernel with no lanes."""

    def call(kernel, *given, **options):
        with monkeypatch.context() as context:
            context.setattr(lanes, "MOST_STATES", 0)
            return kernel(*given, **options)

    return call


def assert_near(found, expected, name=""):
    scale = max(1.0, np.abs(expected[np.isfinite(expected)]).max(initial=0.0)) if np.ndim(expected) else 1.0
    assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * scale, err_msg=name)


def compare(given, starts, one_by_one, readout):
    values = one_by_one(kalman_log_likelihood, *given, starts=starts)
    assert_allclose(kalman_log_likelihood(*given, starts=starts), values, rtol=1e-12)
    for result, expected in [
        (kalman_filter(*given, starts=starts), one_by_one(kalman_filter, *given, starts=starts)),
        (kalman_smoother(*given, starts=starts), one_by_one(kalman_smoother, *given, starts=starts)),
        (
            kalman_smoother(*given, readout, starts=starts),
            one_by_one(kalman_smoother, *given, readout, starts=starts),
        ),
    ]:
        for name, ours, theirs in zip(result._fields, result, expected, strict=True):
            assert_near(ours, theirs, name)
    for by_observation in (True, False):
        options = {"by_observation": by_observation, "starts": starts}
        same, gradient = kalman_gradient(*given, **options)
        assert_allclose(same, values, rtol=1e-12)
        _, expected = one_by_one(kalman_gradient, *given, **options)
        for name, ours, theirs in zip(gradient._fields, gradient, expected, strict=True):
            assert_near(ours, theirs, name)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_equals_one_by_one(model, varying, one_by_one):
    given, starts = problem(model, varying)
    n = len(given[5])
    readout = np.random.default_rng(1).normal(size=(len(given[0]), 2, n) if varying else (2, n))
    members, alone = lanes.groups(starts[:-1], starts[1:])
    assert len(members) >= 2
    compare(given, starts, one_by_one, readout)
    # a known start, and gaps of which many are equal
    given, starts = problem(model, varying, diffuse=False, regular=True)
    compare(given, starts, one_by_one, readout)


@pytest.mark.parametrize("model", ["trend", "rotated Matern32"])
def test_equals_the_reference(model):
    given, starts = problem(model, varying=True, lengths=[4, 4, 4])
    truth = kalman_filter(*given, starts=starts, backend="reference")
    found = kalman_filter(*given, starts=starts)
    for name in ("log_likelihood", "mean", "covariance", "innovation", "innovation_variance", "n_diffuse"):
        assert_allclose(getattr(found, name), getattr(truth, name), rtol=1e-9, atol=1e-10, err_msg=name)
    smoothed, expected = (kalman_smoother(*given, starts=starts, backend=backend) for backend in (None, "reference"))
    assert_allclose(smoothed.mean, expected.mean, rtol=1e-8, atol=1e-9)
    assert_allclose(smoothed.covariance, expected.covariance, rtol=1e-8, atol=1e-9)
    _, gradient = kalman_gradient(*given, starts=starts)
    _, expected = kalman_gradient(*given, starts=starts, backend="reference")
    for name, ours, theirs in zip(gradient._fields, gradient, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(theirs).max(initial=0)), err_msg=name)


def results(given, starts):
    filtered, smoothed = kalman_filter(*given, starts=starts), kalman_smoother(*given, starts=starts)
    return (
        kalman_log_likelihood(*given, starts=starts), *filtered[:5], *smoothed,
        kalman_smoother(*given, np.ones((1, len(given[5]))), starts=starts).covariance,
    )  # fmt: skip


@pytest.mark.parametrize("model", ["trend", "Matern32"])
def test_company_changes_nothing(model):
    """Every record has the same numbers, to the last bit, among others and in another order."""
    lengths = [20, 25, 31, 40, 22, 28, 33, 27, 26, 24, 38, 29]
    given, starts = problem(model, varying=True, lengths=lengths)
    whole = results(given, starts)
    chosen = np.array([7, 2, 9, 0, 11, 4])
    cuts = [np.arange(starts[i], starts[i + 1]) for i in chosen]
    samples = np.concatenate(cuts)
    y, dt, blocks, h, R, *start = given
    fewer = (y[samples], dt[samples], blocks, h[samples], R[samples], *start)
    part = results(fewer, np.append(0, np.cumsum([len(cut) for cut in cuts])))
    for ours, theirs in zip(part, whole, strict=True):
        assert_array_equal(ours, theirs[chosen if len(theirs) == len(lengths) else samples])


def test_threads_change_nothing(monkeypatch):
    given, starts = problem("trend", lengths=LENGTHS * 8)
    monkeypatch.setattr(threads, "OPERATIONS_OF_A_THREAD", 1)
    before = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append((*results(given, starts), *kalman_gradient(*given, starts=starts)[1]))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            assert_array_equal(ours, theirs)


@pytest.mark.parametrize("model", ["level", "trend", "Matern32"])
def test_exact_and_missing_observations(model, one_by_one):
    """R = 0 now and then, the same observation twice, records of which nothing or little is seen, ends without data."""
    given, starts = problem(model, lengths=[12, 9, 14, 11, 13, 10, 12, 15, 9])
    y, dt, blocks, h, _, *start = given
    R = np.where(np.random.default_rng(2).random(len(y)) < 0.4, 0.0, 0.3)
    first = starts[:-1] + 5
    R[first] = R[first + 1] = dt[first + 1] = 0.0
    y[first] = y[first + 1] = 1.5
    y[starts[1] : starts[2]] = np.nan
    y[starts[2] + 1 : starts[3]] = np.nan
    y[starts[4] - 4 : starts[4]] = np.nan
    given = (y, dt, blocks, h, R, *start)
    compare(given, starts, one_by_one, np.ones((1, len(h))))
    assert np.isfinite(kalman_log_likelihood(*given, starts=starts)).all()
    # what is known exactly and then contradicted has no likelihood
    y[starts[5] + 6] = 2.5
    values = kalman_log_likelihood(*given, starts=starts)
    assert_array_equal(np.flatnonzero(np.isneginf(values)), [5])


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_determinants_neither_overflow_nor_vanish(scale, one_by_one):
    (y, dt, blocks, h, R, mean, covariance, _), starts = problem("Matern32")
    blocks = blocks._replace(parameters=blocks.parameters * [1.0, scale**2, 1.0])
    given = (y * scale, dt, blocks, h, R * scale**2, mean * scale, covariance * scale**2)
    values = kalman_log_likelihood(*given, starts=starts)
    assert np.isfinite(values).all()
    assert_allclose(values, one_by_one(kalman_log_likelihood, *given, starts=starts), rtol=1e-12)


def test_long_ways_are_not_kept(monkeypatch):
    given, starts = problem("trend")
    value, gradient = kalman_gradient(*given, starts=starts)
    monkeypatch.setattr(lanes, "WAY_BYTES", 30_000)
    members, alone, _ = lanes.groups_to_return(starts, lanes.Starts(starts[:-1], *[np.zeros((1, 2))] * 4), 2)
    assert len(members) > 0
    assert_array_equal(alone, [19])
    again, same = kalman_gradient(*given, starts=starts)
    assert_allclose(again, value, rtol=1e-12)
    for ours, theirs in zip(same, gradient, strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_groups():
    lengths = np.array([5, 900, 6, 5, 7, 6, 5, 7, 6, 5, 7, 3, 4])
    starts = np.append(0, np.cumsum(lengths))
    begin = starts[:-1].copy()
    begin[4] = -1
    members, alone = lanes.groups(begin, starts[1:])
    # the first group would wait for the long record, the other one is worth while
    assert_array_equal(np.sort(np.concatenate([alone, members[members >= 0]])), np.arange(13))
    assert 1 in alone
    assert 4 in alone
    assert lengths[members[members >= 0]].max() == 5
    members, alone = lanes.groups(np.arange(17) * 9, np.arange(1, 18) * 9)
    assert members.shape == (2, WIDTH)
    assert_array_equal(alone, [16])


@njit
def vectors_of(x, root, fall, cosine, sine, gamma):
    scratch = np.zeros(3 * WIDTH)
    for i in range(0, len(x), WIDTH):
        value = load(x, i)
        first, second = decays(value)
        store(first, root, i)
        store(second, fall, i)
        store(gammas_5(value, first), gamma, i)
        first, second = rotations(value, scratch)
        store(first, cosine, i)
        store(second, sine, i)


def test_functions_of_vectors():
    from scipy.special import gammainc

    rng = np.random.default_rng(3)
    x = np.concatenate([10.0 ** rng.uniform(-12, 7, 4000), np.arange(800) * np.pi / 2, [0.0] * 8])
    root, fall, cosine, sine, gamma = np.zeros((5, len(x)))
    vectors_of(x, root, fall, cosine, sine, gamma)
    near = x < 700
    assert_allclose(root[near], np.exp(-x[near]), rtol=4e-16 * 4)
    assert_allclose(fall, np.expm1(-x), rtol=1e-15)
    assert_allclose(gamma[near], gammainc(5, x[near]), rtol=1e-12, atol=1e-300)
    assert_allclose(cosine, np.cos(x), rtol=0, atol=4e-16)
    turned = np.arange(4000, 4800, 2)
    assert_allclose(np.delete(sine, turned), np.delete(np.sin(x), turned), rtol=0, atol=4e-16)
    # whole half turns are exact, so that nothing seeps from one state into the other
    assert_array_equal(sine[4000:4800:2], 0.0)
    assert_array_equal(np.abs(cosine[4000:4800:2]), 1.0)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for instructions of x86-64")
def test_vectors_are_vector_instructions():
    def loop(x, y):
        store(load(x, 0) * load(y, 0) + load(x, WIDTH), y, WIDTH)

    compiled = njit(loop)
    compiled(np.ones(2 * WIDTH), np.ones(2 * WIDTH))
    (assembler,) = compiled.inspect_asm().values()
    assert "pd\t" in assembler
    assert "mulsd" not in assembler
