"""LTIFilter: the analog response on any times, both faces, every form of X, scikit-learn's checks."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.signal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import statespace
from statespace import SeriesCollection
from statespace.lti import LinearSystem, LTIFilter

KINDS = {
    "butterworth": {"kind": "butterworth", "order": 4, "cutoff": 0.4},
    "order 8": {"kind": "butterworth", "order": 8, "cutoff": 0.4},
    "highpass": {"kind": "butterworth", "order": 3, "cutoff": 0.4, "band": "highpass"},
    "chebyshev1": {"kind": "chebyshev1", "order": 5, "cutoff": 0.4, "ripple": 0.5},
    "chebyshev2": {"kind": "chebyshev2", "order": 6, "cutoff": 0.6, "band": "highpass"},
    "elliptic": {"kind": "elliptic", "order": 4, "cutoff": (0.2, 0.5), "band": "bandpass"},
    "bessel": {"kind": "bessel", "order": 6, "cutoff": (0.2, 0.5), "band": "bandstop"},
    "notch": {"kind": "notch", "cutoff": 0.3, "quality": 3.0},
    "peak": {"kind": "peak", "cutoff": 0.3, "quality": 3.0},
    "narrow": {"kind": "butterworth", "order": 4, "cutoff": (0.3, 0.303), "band": "bandpass"},
    # A band whose edges are (1 + √2)² apart has a double pole: stepped as a whole.
    "double pole": {"kind": "butterworth", "order": 3, "cutoff": (0.1, 0.1 * (3 + 8**0.5)), "band": "bandpass"},
    "system": {"kind": LinearSystem(-np.eye(3) + np.eye(3, k=1), [0.0, 0.0, 1.0], [1.0, 0.0, 0.5], 0.2)},
}


@pytest.fixture(params=KINDS)
def options(request):
    return KINDS[request.param]


def record(n, seed=0):
    """Times with bursts and a gap, and a rough signal on a large offset."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(0.2, size=n)
    gaps[n // 2] = 15.0
    gaps[n // 4 : n // 4 + 5] = 1e-4
    return np.cumsum(gaps), rng.normal(size=n).cumsum() * 0.3 + 100.0


# Cutoffs above half the rate do not matter here, but where it is looked for.
pytestmark = pytest.mark.filterwarnings("ignore:the cutoff:UserWarning")


def filtered(options, times, x, **more):
    return LTIFilter(**options, **more).fit([x], times=[times]).transform([x], times=[times])[0]


def test_the_gain_is_that_of_the_analog_design(options):
    f = np.array([0.01, 0.2, 0.4, 1.7])
    model = LTIFilter(**options).fit([np.zeros(10)])
    if "cutoff" not in options:
        expected = options["kind"].frequency_response(f)
    else:
        w = 2 * np.pi * np.asarray(options["cutoff"])
        band, order = options.get("band", "lowpass"), options.get("order", 4)
        analog = {"analog": True, "output": "zpk", "btype": band}
        design = {
            "butterworth": lambda: scipy.signal.butter(order, w, **analog),
            "chebyshev1": lambda: scipy.signal.cheby1(order, 0.5, w, **analog),
            "chebyshev2": lambda: scipy.signal.cheby2(order, 40.0, w, **analog),
            "elliptic": lambda: scipy.signal.ellip(order, 1.0, 40.0, w, **analog),
            "bessel": lambda: scipy.signal.bessel(order, w, norm="mag", **analog),
            "notch": lambda: ([1j * w, -1j * w], np.roots([1, w / 3, w**2]), 1.0),
            "peak": lambda: ([0.0], np.roots([1, w / 3, w**2]), w / 3),
        }[options["kind"]]()
        expected = scipy.signal.freqs_zpk(*design, worN=2 * np.pi * f)[1]
    np.testing.assert_allclose(model.frequency_response(f), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.system_.frequency_response(f), expected, rtol=1e-6, atol=1e-9)
    model = clone(model).set_params(zero_phase=True).fit([np.zeros(10)])
    np.testing.assert_allclose(model.frequency_response(f), np.abs(expected) ** 2, atol=1e-8)


@pytest.mark.parametrize("name", ["butterworth", "highpass", "elliptic", "notch", "double pole"])
@pytest.mark.parametrize("hold", ["foh", "zoh"])
def test_on_a_grid_it_is_scipys_lsim(name, hold):
    times, x = 0.1 * np.arange(400), record(400)[1] - 100.0
    x[0] = 0.0
    system = LTIFilter(**KINDS[name]).fit([x], times=[times]).system_
    expected = scipy.signal.lsim(system.to_scipy(), x, times, interp=hold == "foh")[1]
    np.testing.assert_allclose(filtered(KINDS[name], times, x, hold=hold), expected, atol=1e-9)


def test_on_a_dense_grid_it_is_scipys_digital_filter():
    """The two differ by the bilinear rule's error, which falls as the square of the step."""
    errors = []
    for step in (0.02, 0.01):
        times = np.arange(0.0, 40.0, step)
        x = np.sin(2 * np.pi * 0.3 * times) + np.sin(2 * np.pi * 0.9 * times)
        sos = scipy.signal.butter(4, 0.4, fs=1 / step, output="sos")
        digital = scipy.signal.sosfilt(sos, x)
        errors.append(np.abs(filtered(KINDS["butterworth"], times, x) - digital).max())
    assert errors[1] < 2e-3
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("zero_phase", [False, True])
@pytest.mark.parametrize(
    "name", ["butterworth", "highpass", "chebyshev1", "chebyshev2", "bessel", "notch", "double pole"]
)
def test_a_sinusoid_gets_the_analog_gain_and_phase(name, zero_phase):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(0.002, size=100_000))
    f = 0.35
    x = np.cos(2 * np.pi * f * times)
    model = LTIFilter(**KINDS[name], zero_phase=zero_phase).fit([x], times=[times])
    y = model.transform([x], times=[times])[0]
    expected = (model.frequency_response(f) * np.exp(2j * np.pi * f * times)).real
    inner = (times > 95.0) & (times < times[-1] - 95.0)
    assert np.abs(y - expected)[inner].max() < 1e-4


@pytest.mark.parametrize("hold", ["foh", "zoh"])
@pytest.mark.parametrize("zero_phase", [False, True])
def test_a_constant_passes_without_a_transient(options, hold, zero_phase):
    times, _ = record(60)
    y = filtered(options, times, np.full(60, 1e6), hold=hold, zero_phase=zero_phase)
    gain = float(LTIFilter(**options).fit([np.zeros(9)]).system_.gain)
    np.testing.assert_allclose(y, 1e6 * (gain**2 if zero_phase else gain), rtol=1e-9, atol=1e-3)
    assert np.ptp(y) == 0.0


@pytest.mark.parametrize("hold", ["foh", "zoh"])
@pytest.mark.parametrize("zero_phase", [False, True])
def test_cutting_gaps_on_the_hold_changes_nothing(options, hold, zero_phase):
    times, x = record(80)
    every, finer = np.empty(159), np.empty(159)
    every[0::2], every[1::2] = times, 0.3 * times[1:] + 0.7 * times[:-1]
    finer[0::2], finer[1::2] = x, (0.3 * x[1:] + 0.7 * x[:-1]) if hold == "foh" else x[:-1]
    keywords = {"hold": hold, "zero_phase": zero_phase, "padding": "constant"}
    cut = filtered(options, every, finer, **keywords)
    np.testing.assert_allclose(cut[0::2], filtered(options, times, x, **keywords), atol=1e-8)


@pytest.mark.parametrize("hold", ["foh", "zoh"])
@pytest.mark.parametrize("zero_phase", [False, True])
def test_missing_samples_are_as_if_they_were_not_there(options, hold, zero_phase):
    times, x = record(90)
    gone = np.random.default_rng(1).random(90) < 0.4
    gone[[0, 1, 50, 51, 52, 89]] = True
    gone[2] = False
    holes = np.where(gone, np.nan, x)
    keywords = {"hold": hold, "zero_phase": zero_phase, "padding": "constant"}
    y = filtered(options, times, holes, **keywords)
    np.testing.assert_allclose(y[~gone], filtered(options, times[~gone], x[~gone], **keywords), atol=1e-9)
    assert np.isnan(y[:2]).all()
    last = np.flatnonzero(~gone)[-1]
    assert np.isfinite(y[2 : last + 1]).all()
    assert np.isnan(y[last + 1 :]).all() == zero_phase
    # Where a value is missing: the causal output if the last value went on.
    if not zero_phase:
        for k in np.flatnonzero(gone)[2:8]:
            seen = np.flatnonzero(~gone[:k])
            going_on = filtered(options, np.append(times[seen], times[k]), np.append(x[seen], x[seen[-1]]), **keywords)
            np.testing.assert_allclose(y[k], going_on[-1], atol=1e-9)


@pytest.mark.parametrize("hold", ["foh", "zoh"])
@pytest.mark.parametrize("zero_phase", [False, True])
def test_series_do_not_know_each_other(options, hold, zero_phase):
    rng = np.random.default_rng(5)
    X, times = [], []
    for n in (30, 1, 7, 12):
        rows = rng.normal(size=(n, 2)) + 50.0
        rows[rng.random((n, 2)) < 0.3] = np.nan
        X.append(rows)
        times.append(np.cumsum(rng.exponential(size=n)))
    X[2][:3] = np.nan
    model = LTIFilter(**options, hold=hold, zero_phase=zero_phase).fit(X, times=times)
    together = model.transform(X, times=times)
    for rows, own, filtered in zip(X, times, together, strict=True):
        for j in range(2):
            alone = np.column_stack([rows[:, j], np.full(len(rows), np.nan)])
            np.testing.assert_allclose(model.transform([alone], times=[own])[0][:, 0], filtered[:, j], atol=1e-9)


def test_a_channel_of_nothing_but_nan():
    X = np.stack([np.arange(5.0), np.full(5, np.nan)], axis=1)[np.newaxis]
    for zero_phase in (False, True):
        y = LTIFilter(zero_phase=zero_phase).fit_transform(X)
        assert np.isnan(y[0, :, 1]).all()
        assert np.isfinite(y[0, :, 0]).all()


@pytest.mark.parametrize("name", [name for name in KINDS if name != "narrow"])  # 300 units of memory: a long fine grid
def test_zero_phase_is_the_convolution_with_both_sides(name):
    """Against a fine grid: forward, then backward, over an input that is a line between its samples and then rests."""
    options = KINDS[name]
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.integers(1, 60, size=25)) * 0.02
    x = rng.normal(size=25)
    y = filtered(options, times, x, zero_phase=True, padding="constant")
    step, rest = 0.0025, 60.0
    grid = np.arange(times[0] - rest, times[-1] + rest + step / 2, step)
    system = LTIFilter(**options).fit([np.zeros(9)]).system_
    fine = np.interp(grid, times, x)
    fine -= x[0]
    ahead = system.simulate(fine, times=grid, hold="foh").output
    settled = -np.linalg.solve(system.A, system.B[:, 0]) * ahead[-1]
    both = system.simulate(ahead[::-1], times=grid, initial_state=settled, hold="foh").output[::-1]
    expected = np.interp(times, grid, both) + float(system.gain) ** 2 * x[0]
    np.testing.assert_allclose(y, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("padding", ["odd", "even", "constant"])
def test_zero_phase_knows_no_direction(options, padding):
    times, x = record(70)
    y = filtered(options, times, x, zero_phase=True, padding=padding)
    back = filtered(options, -times[::-1], x[::-1].copy(), zero_phase=True, padding=padding)[::-1]
    np.testing.assert_allclose(back, y, atol=1e-8)


def test_paddings():
    times, x = record(70)
    ramp = 3.0 * times + 5.0
    np.testing.assert_allclose(filtered(KINDS["butterworth"], times, ramp, zero_phase=True), ramp, rtol=1e-3)
    rough = filtered(KINDS["butterworth"], times, ramp, zero_phase=True, padding="constant")
    assert abs(rough[0] - ramp[0]) > 0.1
    one = filtered(KINDS["butterworth"], times[:1], x[:1], zero_phase=True)
    np.testing.assert_allclose(one, x[:1])


@pytest.mark.parametrize("hold", ["foh", "zoh"])
def test_stream_equals_transform(options, hold):
    times, x = record(40)
    X = np.stack([x, np.roll(x, 3)], axis=1)
    X[[0, 7, 8], 0] = np.nan
    X[[20, 39], 1] = np.nan
    model = LTIFilter(**options, hold=hold).fit([X], times=[times])
    stream = model.stream()
    outputs = []
    for k, (x_t, dt) in enumerate(zip(X, np.diff(times, prepend=0.0), strict=True)):
        if k == 20:
            branch, stored = copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))
        outputs.append(stream.step(x_t, dt))
    np.testing.assert_allclose(outputs, model.transform([X], times=[times])[0], atol=1e-9)
    np.testing.assert_array_equal(branch.step(X[20], times[20] - times[19]), outputs[20])
    np.testing.assert_array_equal(stored.step(X[20], times[20] - times[19]), outputs[20])
    np.testing.assert_array_equal(stream.reset().step(X[5]), model.transform([X[5:6]], times=[times[5:6]])[0][0])


def test_every_form_comes_back():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 20, 2))
    times = np.cumsum(rng.exponential(size=20))
    model = LTIFilter(cutoff=0.2).fit(X, times=times)
    expected = model.transform(X, times=times)
    assert expected.shape == X.shape
    listed = model.transform(list(X), times=[times] * 3)
    assert isinstance(listed, list)
    np.testing.assert_array_equal(np.stack(listed), expected)
    collection = model.transform(SeriesCollection(X, times=times))
    assert isinstance(collection, SeriesCollection)
    np.testing.assert_array_equal(np.stack(collection.values), expected)
    frames = [pd.DataFrame(x, index=times, columns=["a", "b"]) for x in X]
    for frame, values in zip(model.transform(frames), expected, strict=True):
        assert list(frame.columns) == ["a", "b"]
        np.testing.assert_array_equal(frame, values)
        np.testing.assert_array_equal(frame.index, times)
    panel = pd.concat(frames, keys=["x", "y", "z"], names=["series", "time"])
    mixed = panel.sort_index(level="time", kind="stable", sort_remaining=False)
    for given in (panel, mixed):
        found = model.transform(given)
        assert found.index.equals(given.index)
        np.testing.assert_array_equal(found.loc["y"], expected[1])
    model = LTIFilter(cutoff=0.2).fit(panel["a"])
    found = model.transform(panel["a"])
    assert found.name == "a"
    np.testing.assert_array_equal(found, expected[..., 0].ravel())
    series = model.transform([frame["a"] for frame in frames])
    np.testing.assert_array_equal(series[2], expected[2, :, 0])
    table = LTIFilter(cutoff=0.2).fit_transform(X[..., 0], times=times)
    np.testing.assert_array_equal(table, expected[..., 0])
    ragged = LTIFilter(cutoff=0.2).fit_transform([X[0, :, 0], X[1, :7, 0]])
    assert [part.shape for part in ragged] == [(20,), (7,)]


def test_names_out():
    frame = pd.DataFrame(np.ones((5, 2)), index=np.arange(5.0), columns=["a", "b"])
    assert LTIFilter().fit([frame]).get_feature_names_out().tolist() == ["a", "b"]
    assert LTIFilter().fit(np.ones((2, 5, 2))).get_feature_names_out().tolist() == ["x0", "x1"]
    table = pd.DataFrame(np.ones((3, 4)), columns=list("pqrs"))
    model = LTIFilter().fit(table).set_output(transform="pandas")
    assert model.get_feature_names_out().tolist() == list("pqrs")
    assert list(model.transform(table).columns) == list("pqrs")
    with pytest.raises(ValueError, match="columns"):
        LTIFilter().fit([frame]).transform([frame[["b", "a"]]])


def test_clocks():
    times, x = record(50)
    hours = pd.Timestamp("2024-03-30", tz="Europe/Berlin") + pd.to_timedelta(times, unit="h")
    y = filtered(KINDS["butterworth"], times, x)
    np.testing.assert_allclose(filtered(KINDS["butterworth"], hours, x, time_unit="h"), y, rtol=1e-9)
    np.testing.assert_allclose(filtered(KINDS["butterworth"], times + 2.0**30, x), y, rtol=1e-6)
    eighths = np.round(times * 8) / 8
    shifted = filtered(KINDS["butterworth"], eighths + 1e9, x)
    np.testing.assert_array_equal(shifted, filtered(KINDS["butterworth"], eighths, x))
    model = LTIFilter(cutoff=0.1, time_unit="h").fit([x], times=[hours])
    stream = model.stream()
    stream.step(x[0])
    twin = copy.deepcopy(stream)
    assert stream.step(x[1], pd.Timedelta("30min")) == twin.step(x[1], 0.5)
    with pytest.raises(ValueError, match="was fitted with times"):
        model.transform([x])
    with pytest.raises(ValueError, match="datetimes"):
        model.transform([x], times=[times])


@pytest.mark.parametrize("zero_phase", [False, True])
@pytest.mark.parametrize("scale", [2.0**40, 1e9, 1e-9])
@pytest.mark.parametrize(
    "name", [*(name for name in KINDS if name != "system"), "bessel 20", "butterworth 24", "bessel 24"]
)
def test_rescaling_time_changes_nothing(name, scale, zero_phase):
    kind, _, order = name.partition(" ")
    options = dict(KINDS[name] if name in KINDS else {"kind": kind, "order": int(order), "cutoff": 0.4})
    times, x = record(100)
    y = filtered(options, times, x, zero_phase=zero_phase)
    options["cutoff"] = np.asarray(options["cutoff"]) / scale
    tol = 1e-10 if scale == 2.0**40 else 1e-7
    np.testing.assert_allclose(filtered(options, times * scale, x, zero_phase=zero_phase), y, atol=tol)


def test_high_orders_keep_their_response():
    times = np.cumsum(np.random.default_rng(0).exponential(0.002, size=60_000))
    f = 0.35
    x = np.cos(2 * np.pi * f * times)
    for kind, order in (("bessel", 20), ("bessel", 24), ("butterworth", 24)):
        for zero_phase in (False, True):
            model = LTIFilter(kind, order, 0.5, zero_phase=zero_phase).fit([x], times=[times])
            y = model.transform([x], times=[times])[0]
            expected = (model.frequency_response(f) * np.exp(2j * np.pi * f * times)).real
            assert np.abs(y - expected)[(times > 50) & (times < times[-1] - 50)].max() < 5e-5


def test_default_cutoff_follows_the_sampling_rate():
    times = np.arange(0.0, 10.0, 0.25)
    model = LTIFilter().fit([times], times=[times])
    assert model.time_scale_ == 0.25
    assert model.cutoff_ == 0.4
    assert LTIFilter(band="bandpass").fit([times], times=[times]).cutoff_ == (0.2, 0.8)
    with pytest.warns(UserWarning, match=r"cutoff 3 lies above half the median sampling rate, 2 cycles"):
        LTIFilter(cutoff=3.0).fit([times], times=[times])


def test_save(tmp_path):
    times, x = record(40)
    for options in (KINDS["elliptic"], KINDS["system"], {}):
        model = LTIFilter(**options).fit([x], times=[times])
        model.save(tmp_path / "filter")
        again = statespace.load(tmp_path / "filter")
        np.testing.assert_array_equal(again.transform([x], times=[times])[0], model.transform([x], times=[times])[0])
        assert again.cutoff_ == model.cutoff_


def test_in_a_pipeline():
    X, y = np.random.default_rng(0).normal(size=(12, 30)), np.arange(12.0)
    from sklearn.linear_model import Ridge

    pipe = make_pipeline(LTIFilter(), Ridge()).fit(X, y)
    assert pipe.predict(X).shape == (12,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "butter"}, "'butterworth'"),
        ({"band": "low"}, "'lowpass'"),
        ({"order": 0}, "whole number from 1"),
        ({"order": 2.0}, "whole number"),
        ({"cutoff": -1.0}, "one positive frequency. Got -1.0"),
        ({"cutoff": (0.1, 0.2)}, "cutoff of a lowpass"),
        ({"cutoff": 0.1, "band": "bandpass"}, "pair"),
        ({"cutoff": (0.2, 0.1), "band": "bandstop"}, "0 < low < high"),
        ({"cutoff": "fast"}, "one positive frequency"),
        ({"kind": "notch", "quality": 0.0}, "quality must be"),
        ({"kind": "notch", "cutoff": (0.1, 0.2)}, "cutoff of notch"),
        ({"kind": "chebyshev1", "ripple": -1.0}, "ripple"),
        ({"kind": "elliptic", "ripple": 50.0}, "smaller than attenuation"),
        ({"hold": "linear"}, "'foh'"),
        ({"padding": "reflect"}, "padding"),
        ({"kind": LinearSystem(0.0, 1.0, 1.0)}, "stable"),
        ({"kind": LinearSystem(-1.0, 1.0, 1.0).discretize(1.0)}, "continuous time"),
        ({"kind": LinearSystem(-1.0, [[1.0, 1.0]], 1.0)}, "one input"),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        LTIFilter(**options).fit(np.ones((1, 5)))


def test_bad_samples():
    model = LTIFilter().fit(np.ones((2, 5, 2)))
    with pytest.raises(ValueError, match="2 features"):
        model.transform(np.ones((2, 5, 3)))
    stream = model.stream()
    with pytest.raises(ValueError, match="2 finite value"):
        stream.step(1.0)
    with pytest.raises(ValueError, match="2 finite value"):
        stream.step([np.inf, 1.0])
    stream.step([1.0, 1.0])
    with pytest.raises(ValueError, match=r"Got -1\.0"):
        stream.step([1.0, 1.0], -1.0)
    with pytest.raises(ValueError, match="as a number"):
        stream.step([1.0, 1.0], pd.Timedelta("1D"))
    with pytest.raises(ValueError, match="zero_phase=False"):
        LTIFilter(zero_phase=True).fit(np.ones((1, 5))).stream()


@pytest.mark.parametrize("zero_phase", [False, True])
@pytest.mark.filterwarnings("ignore:Skipping check")
def test_scikit_learns_checks(zero_phase):
    results = check_estimator(LTIFilter(zero_phase=zero_phase), on_fail=None)
    failed = {result["check_name"]: repr(result["exception"]) for result in results if result["status"] == "failed"}
    assert failed == {}
    assert len(results) > 30
