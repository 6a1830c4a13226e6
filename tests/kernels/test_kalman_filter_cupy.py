"""The filter's CUDA kernels: every result and every gradient against the compiled loops, and the code for GPUs.

Where there is no GPU the same sources run on the processor (``host.py``), and the Python around them on NumPy.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, Matern
from statespace.kernels import cuda
from statespace.kernels.dispatch import BackendError
from statespace.kernels.kalman_filter import (
    Blocks,
    contract_blocks,
    discretize_blocks,
    gpu_cupy,
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
    kalman_smoother,
    kalman_stepper,
)
from statespace.kernels.kalman_filter.blocks import MATERN32, OU, RANDOM_WALK, ROTATION, SHO, TREND
from statespace.kernels.kalman_filter.prepared import Prepared
from tests.kernels.host import compile_for_gpus
from tests.kernels.test_kalman_filter_batch import problem as batch
from tests.kernels.test_kalman_filter_gradient import CASES
from tests.kernels.test_kalman_filter_gradient import problem as single


@pytest.fixture(autouse=True)
def nothing_in_memory(cuda_runtime, monkeypatch):
    """Short segments, and memory that holds no numbers, so that what is not written is seen."""
    xp = cuda_runtime.arrays

    def empty(*shape, dtype=np.float64):
        return xp.full(shape, xp.nan if dtype == np.float64 else -(10**9), dtype=dtype)

    monkeypatch.setattr(gpu_cupy, "empty", empty)
    monkeypatch.setattr(gpu_cupy, "SEGMENT", 4)


def near(found, expected, tolerance=1e-10, name=""):
    """Equal to ``tolerance`` of the largest finite number."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    finite = np.isfinite(expected)
    assert_array_equal(found[~finite], expected[~finite], err_msg=name)
    scale = np.abs(expected[finite]).max(initial=1.0)
    assert_allclose(found[finite] / scale, expected[finite] / scale, rtol=0, atol=tolerance, err_msg=name)


def compare(given, tolerance=1e-10, readout=None, by_observation=True, **options):
    options_of = {
        kalman_filter: {}, kalman_smoother: {"readout": readout}, kalman_gradient: {"by_observation": by_observation},
    }  # fmt: skip
    for function, more in options_of.items():
        found = function(*given, **more, **options, backend="cupy")
        expected = function(*given, **more, **options, backend="cpu")
        if function is kalman_gradient:
            near(found[0], expected[0], tolerance, "log_likelihood")
            found, expected = found[1], expected[1]
        for name, x, y in zip(expected._fields, found, expected, strict=True):
            assert np.shape(x) == np.shape(y), name
            if name == "diffuse" and function is kalman_filter:
                x, y = found.diffuse_covariance, expected.diffuse_covariance
            near(x, y, tolerance, f"{function.__name__}: {name}")
    near(
        kalman_log_likelihood(*given, **options, backend="cupy"),
        kalman_log_likelihood(*given, **options, backend="cpu"),
        tolerance,
    )


@pytest.mark.parametrize(
    ("model", "varying"), [("trend", True), ("Matern32", False), ("seasonal", False), ("table", True)]
)
def test_many_ragged_records(model, varying):
    given, starts = batch(model, varying)
    readout = np.random.default_rng(2).normal(size=(len(given[0]), 2, len(given[5]))) if varying else None
    # rows h of two samples that are nearly parallel leave the slope a variance of 1e6, which smoothing takes back
    compare(given, 1e-8 if model == "trend" else 1e-10, starts=starts, readout=readout, by_observation=varying)


@pytest.mark.parametrize("case", ["everything", "too short to resolve"])
def test_one_record(case):
    compare(single(**CASES[case]))


def hard(case):
    rng = np.random.default_rng(5)
    T = 23
    y, dt, R = rng.normal(size=T), np.exp(rng.uniform(np.log(1e-6), np.log(1e6), T)), np.full(T, 0.3)
    # a level that hardly moves, and what is stationary: over any gap the covariances keep their digits
    blocks = Blocks([RANDOM_WALK, MATERN32, OU], [1, 2, 1], [[1e-9, 0.0], [0.9, 1.3], [0.7, 0.4]])
    covariance = np.diag([0.0, 1.3, 1.3 * 0.9**2, 0.4])
    h, start = np.array([1.0, 1.0, 0.0, 1.0]), (np.zeros(4), covariance, np.eye(4)[:, :1])
    if case == "all missing":
        y[:] = np.nan
    elif case == "equal times":
        dt[5:9] = 0.0
    elif case == "no noise":
        R[4:6], dt[5] = 0.0, 0.0
        y[5] = y[4]
    elif case == "contradiction":
        R[4:6], dt[5] = 0.0, 0.0
    return y, dt, blocks, h, R, *start


@pytest.mark.parametrize("case", ["equal times", "all missing", "no noise"])
def test_hard_records(case):
    compare(hard(case), tolerance=1e-9)


def test_a_contradiction_is_impossible():
    assert kalman_log_likelihood(*hard("contradiction"), backend="cupy") == -np.inf


def test_many_small_gaps_after_long_records(cuda_runtime, monkeypatch):
    """Few threads, little memory: several records in turn, and longer segments."""
    given, starts = batch("Matern32", varying=False, lengths=[70, 1, 33, 64, 65, 2] * 12)
    expected, by = kalman_gradient(*given, starts=starts, backend="cpu")
    for memory in (2**26, 2**17):
        monkeypatch.setattr(type(cuda.runtime), "free_memory", lambda self, given=memory: given)
        monkeypatch.setattr(type(cuda.runtime), "resident_threads", lambda self: 32)
        found, gradient = kalman_gradient(*given, starts=starts, backend="cupy")
        near(found, expected)
        for name, x, y in zip(by._fields, gradient, by, strict=True):
            near(x, y, name=name)


@pytest.mark.parametrize("alone", [False, True])
def test_directions_that_the_first_samples_hardly_tell_apart(alone):
    """A yearly harmonic on daily samples, beside a record that sees a year in steps of months."""
    rng = np.random.default_rng(7)
    starts = np.array([0, 120, 150])
    dt = np.concatenate([rng.uniform(0.4, 1.6, 120), rng.uniform(20.0, 70.0, 30)])
    y = 5.0 + 3.0 * np.sin(2 * np.pi * np.cumsum(dt) / 365.25) + rng.normal(size=150)
    y[20:25] = np.nan
    blocks = Blocks([RANDOM_WALK, ROTATION], [1, 2], [[0.01, 0.0], [2 * np.pi / 365.25, 1e-6]])
    start = np.array([1.0, 1.0, 0.0]), 0.8, np.zeros(3), np.zeros((3, 3)), np.eye(3)
    if alone:
        compare((y[:120], dt[:120], blocks, *start), tolerance=1e-8)
    else:
        R = np.full(150, 0.8)
        compare((y, dt, blocks, start[0], R, *start[2:]), tolerance=1e-8, starts=starts, readout=np.eye(3)[:1])


def test_gaps_as_matrices_and_back():
    _, dt, blocks, *_ = single(**CASES["turning"])
    bars = np.random.default_rng(3).normal(size=(2, len(dt), blocks.n_states, blocks.n_states))
    for name, x, y in zip(
        ("A", "Q"), discretize_blocks(blocks, dt, backend="cupy"), discretize_blocks(blocks, dt), strict=True
    ):
        near(x, y, 1e-14, name)
    bars[1] += np.swapaxes(bars[1], -1, -2)
    near(contract_blocks(blocks, dt, *bars, backend="cupy"), contract_blocks(blocks, dt, *bars), 1e-13)


def test_what_is_not_wanted_is_zero():
    given = single(**CASES["no diffuse direction"])
    free = np.zeros(given[2].parameters.shape, dtype=bool)
    free[0] = True
    found = kalman_gradient(*given, free_parameters=free, by_observation=False, backend="cupy")[1]
    expected = kalman_gradient(*given, free_parameters=free, by_observation=False, backend="cpu")[1]
    for name, x, y in zip(expected._fields, found, expected, strict=True):
        near(x, y, name=name)


class OnDevice(np.ndarray):
    """An array of NumPy that says it is on a GPU."""

    @property
    def __cuda_array_interface__(self):
        return self.__array_interface__


def test_arrays_on_a_gpu_choose_the_backend(cuda_runtime, monkeypatch):
    (y, dt, blocks, h, R, *start), starts = batch("Matern32", varying=False)
    expected = kalman_log_likelihood(y, dt, blocks, h, R, *start, starts=starts)
    if cuda_runtime.device == "cuda":
        y, dt = cuda_runtime.arrays.asarray(y), cuda_runtime.arrays.asarray(dt)
    else:
        y, dt = y.view(OnDevice), dt.view(OnDevice)
        monkeypatch.setattr(cuda, "borrowed", lambda x, dtype=None: np.ascontiguousarray(x, dtype).view(OnDevice))
    found = kalman_log_likelihood(y, dt, blocks, h, R, *start, starts=starts)
    assert isinstance(found, cuda_runtime.arrays.ndarray)
    near(cuda_runtime.fetched(found), expected)
    with pytest.raises(BackendError, match="main memory"):
        kalman_log_likelihood(y, dt, blocks, h, R, *start, starts=starts, backend="cpu")
    prepared = Prepared(y, dt, blocks, h, R, *start, starts=starts)
    value, gradient = prepared.gradient()
    near(value, expected)
    near(gradient.parameters, kalman_gradient(*batch("Matern32", varying=False)[0], starts=starts)[1].parameters)
    assert type(value) is type(gradient.mean) is type(prepared.log_likelihood()) is np.ndarray


def test_an_estimator_on_a_gpu():
    rng = np.random.default_rng(0)
    X = np.sort(rng.uniform(0.0, 10.0, 40))[:, np.newaxis]
    y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=40)
    found, expected = (
        KalmanRegressor(LocalLevel() + Matern(nu=1.5), backend=backend).fit(X, y) for backend in ("cupy", None)
    )
    assert_allclose(found.log_marginal_likelihood_value_, expected.log_marginal_likelihood_value_, rtol=1e-8)
    new = [[2.5], [11.0]]
    for x, truth in zip(found.predict(new, return_std=True), expected.predict(new, return_std=True), strict=True):
        assert_allclose(x, truth, rtol=1e-4)
    assert_allclose(found.stream().step(0.3, dt=0.2), expected.stream().step(0.3, dt=0.2), rtol=1e-4)


def test_what_it_refuses():
    n = gpu_cupy.MOST_STATES + 1
    many = Blocks([RANDOM_WALK], [n], [[0.1, 0.0]])
    with pytest.raises(BackendError, match="at most"):
        kalman_log_likelihood([1.0], [0.0], many, np.ones(n), 1.0, np.zeros(n), np.eye(n), backend="cupy")
    with pytest.raises(BackendError, match="whole records"):
        kalman_stepper(Blocks([RANDOM_WALK], [1], [[0.1, 0.0]]), [1.0], [0.0], [[1.0]], backend="cupy")


def macros(kinds, sizes, directions):
    listed = ", ".join(map(str, kinds)), ", ".join(map(str, sizes)), ", ".join(map(str, range(len(kinds))))
    return dict(zip(gpu_cupy.LISTS, listed, strict=True)) | {
        "N": sum(sizes), "UNITS": len(kinds), "DIRECTIONS": directions, "THREADS": gpu_cupy.THREADS, "EACH_H": 0,
        "EACH_R": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "more"),
    [
        ("filter.cu", {}),
        ("gradient.cu", {"MOVES": 1, "BY_OBSERVATION": 0}),
        ("smoother.cu", {"READ": 1, "EACH_READ": 0}),
    ],
)
def test_it_compiles_for_gpus_without_spilling(nvcc, file, more):
    """Four states, in two blocks that move: what a sample needs is in registers.

    A few of the gradient's sums of a whole record may be spilled; the stack holds what a diffuse start needs.
    """
    code = compile_for_gpus(cuda.source("kalman_filter", file, **macros([MATERN32, MATERN32], [2, 2], 0), **more))
    assert {entry["architecture"] for entry in code} == {"sm_80", "sm_90"}
    assert [entry for entry in code if entry["spilled"] > (64 if file == "gradient.cu" else 0)] == []


def test_the_diffuse_start_compiles_for_gpus(nvcc):
    code = compile_for_gpus(cuda.source("kalman_filter", "filter.cu", **macros([TREND, SHO], [2, 2], 2)), ("sm_90",))
    assert [entry for entry in code if entry["spilled"]] == []


@pytest.mark.gpu
def test_many_long_records_on_a_gpu(monkeypatch):
    """20,000 records of 1,000 samples, in segments as they are by default; a few of them against the compiled loops."""
    monkeypatch.undo()
    xp = cuda.runtime.arrays
    R, T = 20_000, 1000
    rng = np.random.default_rng(1)
    # no tiny gaps while a slope is found: what follows would have lost digits either way
    y, dt = rng.normal(size=R * T), rng.uniform(0.3, 3.0, size=R * T)
    y[rng.random(R * T) < 0.05] = np.nan
    blocks = Blocks([TREND, MATERN32], [2, 2], [[0.01, 0.001], [0.8, 0.5]])
    start = np.array([1.0, 0.0, 1.0, 0.0]), 0.3, np.zeros(4), np.diag([0.0, 0.0, 0.5, 0.32]), np.eye(4)[:, :2]
    starts = np.arange(R + 1) * T
    on_device = xp.asarray(y), xp.asarray(dt)
    values, gradient = kalman_gradient(*on_device, blocks, *start, starts=starts)
    readout = start[0][np.newaxis]
    smoothed = kalman_smoother(*on_device, blocks, *start, readout=readout, starts=starts)
    assert all(isinstance(x, xp.ndarray) for x in (values, gradient.parameters, smoothed.mean))
    some = slice(0, 50 * T)
    expected = kalman_smoother(y[some], dt[some], blocks, *start, readout=readout, starts=starts[:51])
    near(cuda.runtime.fetched(values[:50]), expected.log_likelihood)
    near(cuda.runtime.fetched(smoothed.mean[some]), expected.mean, 1e-8)
    near(cuda.runtime.fetched(smoothed.covariance[some]), expected.covariance, 1e-8)
    again = kalman_gradient(*on_device, blocks, *start, starts=starts)[1]
    for x, same in zip(gradient, again, strict=True):
        assert_array_equal(cuda.runtime.fetched(x), cuda.runtime.fetched(same))
    # a small step along the gradient raises the likelihood by its length
    by = cuda.runtime.fetched(gradient.parameters)
    length = np.linalg.norm(by)
    moved = []
    for sign in (-1, 1):
        other = blocks._replace(parameters=np.array(blocks.parameters) + sign * 1e-6 * by / length)
        moved.append(float(kalman_log_likelihood(*on_device, other, *start, starts=starts).sum()))
    assert_allclose((moved[1] - moved[0]) / 2e-6, length, rtol=1e-3)
