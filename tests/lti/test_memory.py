"""HiPPOMemory against exact projections: quadrature, mpmath, dense exponentials; online, in batches, in files."""

import copy
import pickle
from math import comb

import mpmath
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import statespace
from statespace import HiPPOMemory, SeriesCollection
from statespace.lti import hippo, input_weights

MEASURES = ("legs", "legt", "lagt", "fourier")
HOLDS = ("zoh", "foh")


def make_record(length=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=length), rng.exponential(size=length) ** 3 + 1e-9


def make_memory(measure="legs", n=8, hold="zoh", window=20.0):
    return HiPPOMemory(measure, n, window=None if measure == "legs" else window, hold=hold)


def projection(u, gaps, n, hold):
    """LegS by Gauss-Legendre quadrature of every piece, with enough nodes to be exact."""
    ends = np.concatenate([[0.0], np.cumsum(gaps)])
    before = u if hold == "zoh" else np.concatenate([u[:1], u[:-1]])
    z, w = np.polynomial.legendre.leggauss(n // 2 + 2)
    x = np.zeros(n)
    for a, b, v0, v1 in zip(ends, ends[1:], before, u, strict=False):
        s = a + (b - a) * (z + 1) / 2
        values = v0 + (v1 - v0) * (z + 1) / 2
        x += (b - a) / (2 * ends[-1]) * (w * values) @ hippo.basis("legs", n, np.log(ends[-1] / s))
    return x


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("n", [1, 2, 3, 64, 256])
def test_legs_is_the_optimal_polynomial(n, hold):
    u, gaps = make_record()
    expected = projection(u, gaps, n, hold)
    np.testing.assert_allclose(make_memory("legs", n, hold).extend(u, gaps).coefficients, expected, atol=1e-13 * n)


@pytest.mark.parametrize("hold", HOLDS)
def test_legs_in_many_digits(hold):
    u, gaps, n = [1.0, -2.5, 0.25, 4.0], [1e-6, 3.0, 0.5, 1000.0], 6
    x = make_memory("legs", n, hold).extend(u, gaps).coefficients
    with mpmath.workdps(40):
        ends = [mpmath.mpf(0)]
        for gap in gaps:
            ends.append(ends[-1] + mpmath.mpf(gap))
        for k in range(n):
            total = mpmath.mpf(0)
            for i, value in enumerate(u):
                a, b, before = ends[i], ends[i + 1], u[max(i - 1, 0)] if hold == "foh" else value

                def integrand(s, a=a, b=b, before=before, value=value, k=k):
                    return (before + (value - before) * (s - a) / (b - a)) * mpmath.legendre(k, 2 * s / ends[-1] - 1)

                total += mpmath.quad(integrand, [a, b])
            expected = mpmath.sqrt(2 * k + 1) * total / ends[-1]
            assert abs(x[k] - float(expected)) < 1e-14


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("measure", MEASURES[1:])
@pytest.mark.parametrize(("n", "window"), [(1, 3.0), (2, 300.0), (33, 3.0), (64, 300.0)])
def test_a_window_is_the_exact_solution_of_its_equation(measure, n, window, hold):
    u, gaps = make_record(60)
    gaps[::9] = 1e-6
    gaps[7], gaps[40] = 30.0, 1e4 if n < 64 else 2.0
    A, B = hippo.matrices(measure, n)
    steps = input_weights(A / window, B / window, gaps, method=hold)
    x, before = np.zeros(n), u[0]
    for k, value in enumerate(u):
        inputs = steps.B0[k, :, 0] * (before if hold == "foh" else value) + steps.B1[k, :, 0] * value
        x, before = steps.A[k] @ x + inputs, value
    memory = make_memory(measure, n, hold, window).extend(u, gaps)
    np.testing.assert_allclose(memory.coefficients, x, atol=2e-13)


def test_lagt_in_many_digits():
    u, gaps, n = [1.0, -2.5, 0.25], [0.5, 1e-5, 2.0], 5
    x = make_memory("lagt", n, window=1.0).extend(u, gaps).coefficients
    ages = np.concatenate([np.cumsum(gaps[::-1])[::-1], [0.0]])
    laguerre = [[(-1) ** j * comb(k, j) / mpmath.factorial(j) for j in range(k, -1, -1)] for k in range(n)]
    with mpmath.workdps(30):
        for k in range(n):
            pieces = [
                mpmath.quad(lambda s, k=k, v=v: v * mpmath.polyval(laguerre[k], s) * mpmath.exp(-s), [b, a])
                for v, a, b in zip(u, ages, ages[1:], strict=False)
            ]
            assert abs(x[k] - float(sum(pieces))) < 1e-14


@pytest.mark.parametrize(("measure", "tolerance"), [("legt", 1e-6), ("fourier", 0.02)])
def test_a_window_comes_close_to_its_projection(measure, tolerance):
    # The value that leaves the window is read from the state: for a smooth signal that costs little.
    n, window = 33, 5.0
    times = np.linspace(0, 30, 6001)[1:]
    signal = np.sin(2 * np.pi * times / window) + 0.3
    x = make_memory(measure, n, "foh", window).extend(signal, 0.005).coefficients
    inside = times[-1000:]
    functions = hippo.basis(measure, n, (times[-1] - inside) / window)
    expected = np.trapezoid(functions * signal[-1000:, None], inside, axis=0) / window
    assert np.sqrt(np.mean((x - expected) ** 2)) < max(tolerance, 2e-3)
    rebuilt = make_memory(measure, n, "foh", window).extend(signal, 0.005).reconstruct(inside[5:-5])
    assert np.sqrt(np.mean((rebuilt - signal[-1000:][5:-5]) ** 2)) < max(tolerance, 2e-3)


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("measure", MEASURES)
def test_one_by_one_equals_one_shot(measure, hold):
    u, gaps = make_record(700)
    whole = make_memory(measure, 32, hold).extend(u, gaps)
    single, cut = make_memory(measure, 32, hold), make_memory(measure, 32, hold)
    for k, (value, gap) in enumerate(zip(u, gaps, strict=True)):
        single.update(value, gap)
        if k % 300 == 7:
            assert np.isfinite(single.coefficients).all()  # reading in between changes nothing
    for start in range(0, 700, 13):
        cut.extend(u[start : start + 13], gaps[start : start + 13])
    for memory in (single, cut):
        np.testing.assert_allclose(memory.coefficients, whole.coefficients, atol=1e-11)
        assert memory.now == pytest.approx(whole.now, rel=1e-14)


def test_a_million_samples():
    rng = np.random.default_rng(0)
    gaps = rng.exponential(size=1_000_000)
    ends = np.concatenate([[0.0], np.cumsum(gaps)])
    middle = (ends[1:] + ends[:-1]) / 2
    u = np.sin(2 * np.pi * middle / 2e5) + 0.1 * rng.normal(size=len(gaps))
    memory = make_memory("legs", 64).extend(u[:600_000], gaps[:600_000]).extend(u[600_000:], gaps[600_000:])
    x = np.zeros(12)
    z, w = np.polynomial.legendre.leggauss(3)
    for start in range(0, len(u), 50_000):
        part = slice(start, start + 50_000)
        for node, weight in zip(z, w, strict=True):
            at = middle[part] + gaps[part] / 2 * node
            x += (weight / 2 * gaps[part] * u[part] / ends[-1]) @ hippo.legendre(12, 2 * at / ends[-1] - 1)
    np.testing.assert_allclose(memory.coefficients[:12], x, atol=1e-12)
    past = np.linspace(0.05, 0.95, 200) * ends[-1]
    assert np.abs(memory.reconstruct(past) - np.sin(2 * np.pi * past / 2e5)).max() < 0.01


@pytest.mark.parametrize("n", [64, 256])
def test_legs_stays_exact_over_thousands_of_stretches(n):
    u, gaps = make_record(3000)
    gaps = np.minimum(gaps, 1.0)
    memory = make_memory("legs", n)
    for value, gap in zip(u, gaps, strict=True):
        memory.extend([value], gap)
    np.testing.assert_allclose(memory.coefficients, make_memory("legs", n).extend(u, gaps).coefficients, atol=1e-10)


def test_legs_does_not_know_the_unit_of_time():
    u, gaps = make_record()
    a, b = make_memory("legs", 32).extend(u, gaps), make_memory("legs", 32).extend(u, gaps * 1024.0)
    np.testing.assert_array_equal(a.coefficients, b.coefficients)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_sample_at_the_time_of_the_one_before_has_no_weight(measure):
    u, gaps = make_record(20)
    twice, zero = np.repeat(u, 2), np.stack([gaps, np.zeros(20)], axis=1).ravel()
    twice[1::2] += 5.0
    expected = make_memory(measure).extend(u, gaps).coefficients
    np.testing.assert_allclose(make_memory(measure).extend(twice, zero).coefficients, expected, atol=1e-13)
    # Under a line it is a jump: the next one starts from it.
    jump = make_memory(measure, hold="foh").extend([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]).coefficients
    np.testing.assert_allclose(jump, make_memory(measure).extend([0.0, 1.0], [2.0, 1.0]).coefficients, atol=1e-13)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_constant_is_rebuilt(measure):
    memory = make_memory(measure, 9, window=2.0).extend(np.full(200, 3.0), 1.0)
    past = memory.now - np.linspace(0, 2.0, 11)
    np.testing.assert_allclose(memory.reconstruct(past), 3.0, rtol=1e-9)
    np.testing.assert_allclose(memory.coefficients, np.eye(9)[0] * 3.0, atol=1e-9)


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("measure", MEASURES)
def test_missing_samples_are_bridged(measure, hold):
    u, gaps = make_record(40)
    holes = u.copy()
    holes[[0, 1, 7, 8, 20]] = np.nan
    kept = np.flatnonzero(~np.isnan(holes))
    ends = np.cumsum(gaps)
    bridged = np.diff(ends[kept], prepend=ends[1])
    expected = make_memory(measure, 16, hold).extend(u[kept], bridged).coefficients
    np.testing.assert_allclose(make_memory(measure, 16, hold).extend(holes, gaps).coefficients, expected, atol=1e-12)
    online = make_memory(measure, 16, hold)
    for value, gap in zip(holes, gaps, strict=True):
        online.update(value, gap)
    np.testing.assert_allclose(online.coefficients, expected, atol=1e-12)
    # After the last value it goes on, until the next one is there.
    online.update(np.nan, 2.0)
    held = make_memory(measure, 16, hold).extend(np.append(u[kept], u[-1]), np.append(bridged, 2.0))
    np.testing.assert_allclose(online.coefficients, held.coefficients, atol=1e-12)
    assert online.update(0.5, 1.0).now == pytest.approx(ends[-1] + 3.0)
    resumed = make_memory(measure, 16, hold).extend(np.append(u[kept], 0.5), np.append(bridged, 3.0))
    np.testing.assert_allclose(online.coefficients, resumed.coefficients, atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_channels_are_remembered_apart(measure):
    u, gaps = np.stack([make_record(30)[0], make_record(30, seed=1)[0]], axis=1), make_record(30)[1]
    u[3, 0] = u[:4, 1] = np.nan
    both = make_memory(measure, 8).extend(u, gaps)
    assert both.coefficients.shape == (2, 8)
    for c in range(2):
        np.testing.assert_array_equal(both.coefficients[c], make_memory(measure, 8).extend(u[:, c], gaps).coefficients)
    past = both.now - np.array([0.5, 0.0])
    assert both.reconstruct(past).shape == (2, 2)
    if measure == "legs":
        assert np.isnan(both.reconstruct([0.0])[0, 1])
    silent = make_memory(measure, 8).extend(np.column_stack([u[:, 0], np.full(30, np.nan)]), gaps)
    assert np.isnan(silent.coefficients[1]).all()
    assert np.isnan(silent.reconstruct(past)[:, 1]).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_features_of_a_history_are_its_coefficients(measure):
    records = [make_record(length, seed) for seed, length in enumerate((1, 50, 17))]
    times = [np.cumsum(gaps) + 5.0 for _, gaps in records]
    memory = make_memory(measure, 8).fit([u for u, _ in records], times=times)
    features = memory.transform([u for u, _ in records], times=times)
    assert features.shape == (3, 8)
    for (u, gaps), row in zip(records, features, strict=True):
        first = np.concatenate([[memory.time_scale_], gaps[1:]])
        np.testing.assert_allclose(memory.reset().extend(u, first).coefficients, row, atol=1e-10)
    np.testing.assert_allclose(
        memory.transform([u for u, _ in records], [t + 2**20 for t in times]), features, atol=1e-7
    )
    assert memory.get_feature_names_out()[:2].tolist() == [f"x0_{measure}0", f"x0_{measure}1"]
    memory.reset().extend(records[1][0], np.concatenate([[memory.time_scale_], records[1][1][1:]]))
    ages = np.array([0.0, 0.2, 0.9])
    scale = memory.now if measure == "legs" else memory.window_
    expected = memory.reconstruct(memory.now - ages * scale)
    np.testing.assert_allclose(memory.inverse_transform(features, ages)[1, :, 0], expected, atol=1e-8)
    assert memory.inverse_transform(features).shape == (3, 101, 1)


def test_in_a_pipeline_the_times_travel_with_the_series():
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 10, size=60)) for _ in range(60)]
    rates = rng.uniform(0.1, 0.5, size=60)
    X = SeriesCollection([np.sin(2 * np.pi * f * (t[-1] - t)) for f, t in zip(rates, times, strict=True)], times)
    model = make_pipeline(HiPPOMemory(n_coefficients=4), StandardScaler(), Ridge(1e-3))
    search = GridSearchCV(model, {"hippomemory__n_coefficients": [2, 12]}, cv=3).fit(X, rates)
    assert search.best_params_ == {"hippomemory__n_coefficients": 12}
    assert search.best_score_ > 0.9
    frame = HiPPOMemory(n_coefficients=2).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == ["x0_legs0", "x0_legs1"]


def test_the_window_is_the_longest_record():
    memory = HiPPOMemory("legt", 4).fit([[1.0, 2.0, 3.0], [1.0, 2.0]], times=[[0.0, 2.0, 4.0], [0.0, 6.0]])
    assert memory.time_scale_ == 2.0
    assert memory.window_ == 8.0
    assert HiPPOMemory("legs", 4).fit(np.ones((2, 3))).window_ is None


def test_every_form_of_series():
    values, gaps = make_record(12)
    frame = pd.DataFrame({"flow": values, "level": values[::-1]}, index=pd.Timestamp("2024-01-01") + pd.to_timedelta(
        np.cumsum(np.round(gaps, 6)), unit="D"
    ))  # fmt: skip
    memory = HiPPOMemory(n_coefficients=3)
    features = memory.fit_transform([frame])
    assert memory.clock_ == "datetimes"
    assert memory.get_feature_names_out().tolist() == [
        "flow_legs0", "flow_legs1", "flow_legs2", "level_legs0", "level_legs1", "level_legs2",
    ]  # fmt: skip
    np.testing.assert_array_equal(memory.transform(SeriesCollection([frame])), features)
    nested = pd.concat({"a": frame, "b": frame})
    np.testing.assert_allclose(memory.transform(nested), np.tile(features, (2, 1)), atol=1e-12)
    memory.update([1.0, 2.0], pd.Timedelta(hours=12)).update([1.0, np.nan], np.timedelta64(1, "D"))
    assert memory.now == 1.5
    with pytest.raises(ValueError, match="fitted with times, and X has none"):
        memory.transform([frame.to_numpy()])
    with pytest.raises(ValueError, match="expecting 2 features"):
        memory.transform([frame[["flow"]]])


@pytest.mark.parametrize("measure", MEASURES)
def test_saved_and_loaded_in_the_middle_of_a_record(measure, tmp_path):
    u, gaps = make_record(30)
    memory = make_memory(measure, 6).fit([u])
    memory.extend(u, gaps).update(np.nan, 1.0)
    copies = [copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))]
    memory.save(tmp_path / "memory")
    copies.append(statespace.load(tmp_path / "memory"))
    assert copies[-1].get_params() == memory.get_params()
    memory.update(0.3, 2.0)
    for other in copies:
        np.testing.assert_array_equal(other.update(0.3, 2.0).coefficients, memory.coefficients)
        np.testing.assert_array_equal(other.transform([u]), memory.transform([u]))
    fresh = clone(memory)
    with pytest.raises(ValueError, match="no record yet"):
        _ = fresh.coefficients


@pytest.mark.parametrize(
    "estimator",
    [
        HiPPOMemory(n_coefficients=4),
        HiPPOMemory("legt", 3, hold="foh"),
        HiPPOMemory("lagt", 3, window=5.0),
        HiPPOMemory("fourier", 4),
    ],
    ids=lambda e: e.measure,
)
@pytest.mark.filterwarnings("ignore:Skipping check check_array_api_input")
def test_scikit_learn_checks(estimator):
    results = check_estimator(estimator, on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HiPPOMemory("legz").fit([[1.0]]), "measure must be one of 'legs'.* Got 'legz'"),
        (lambda: HiPPOMemory("foud").fit([[1.0]]), "measure must be one of"),
        (lambda: HiPPOMemory(n_coefficients=0).fit([[1.0]]), "n_coefficients must be a positive integer. Got 0"),
        (lambda: HiPPOMemory(n_coefficients=2.5).update(1.0), "n_coefficients must be a positive integer. Got 2.5"),
        (lambda: HiPPOMemory(hold="linear").update(1.0), "hold must be 'zoh' or 'foh'. Got 'linear'"),
        (lambda: HiPPOMemory(window=3.0).update(1.0), "takes no window. Got 3.0; use 'legt'"),
        (lambda: HiPPOMemory("legt", window=-3.0).update(1.0), "window must be positive and finite. Got -3.0"),
        (lambda: HiPPOMemory("legt").update(1.0), "needs a window: give window=, or fit first"),
        (lambda: HiPPOMemory().update(np.inf), "u must be finite, or NaN where missing"),
        (lambda: HiPPOMemory().update([[1.0]]), r"Got \(1, 1\); extend takes many samples"),
        (lambda: HiPPOMemory().update(1.0, -1.0), "dt must be finite and >= 0.* Got -1.0"),
        (lambda: HiPPOMemory().update(1.0, np.nan), "dt must be finite and >= 0"),
        (lambda: HiPPOMemory().update([1.0, 2.0]).update(1.0), r"hold 2 value\(s\), as before. Got 1; reset"),
        (lambda: HiPPOMemory().extend(1.0), r"shape \(n_times,\) or \(n_times, n_channels\)"),
        (lambda: HiPPOMemory().extend([1.0, 2.0], [1.0]), r"one gap for each of the 2 samples. Got shape \(1,\)"),
        (lambda: HiPPOMemory().extend([1.0, 2.0], [1.0, -2.0]), r"dt\[1\] is -2.0"),
        (lambda: HiPPOMemory().extend([1.0, np.inf]), "Got an infinity"),
        (lambda: HiPPOMemory().reconstruct([0.0]), "no record yet: give samples to update or extend first"),
        (lambda: HiPPOMemory().update(1.0, 0.0).reconstruct([0.0]), "no time has passed"),
        (lambda: HiPPOMemory().update(1.0).reconstruct([0.5, 1.5]), r"within \[0, 1\].* Got 0.5 to 1.5"),
        (lambda: make_memory("legt").update(1.0).reconstruct([-30.0]), r"within \[-19, 1\]"),
        (lambda: HiPPOMemory(n_coefficients=3).fit([[1.0]]).inverse_transform([[1.0]]), r"shape \(n_series, 3\)"),
        (lambda: HiPPOMemory(n_coefficients=1).fit([[1.0]]).inverse_transform([[1.0]], [2.0]), r"ages .* in \[0, 1\]"),
        (lambda: HiPPOMemory().fit([[1.0], []]), "empty"),
    ],
)  # fmt: skip
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
