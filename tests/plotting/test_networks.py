"""Displays of networks: the numbers that they draw, on Agg."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sktime.exceptions import NotFittedError

from statespace import MambaRegressor, S4DClassifier, S4DRegressor
from statespace.forecasting import S4DForecaster
from statespace.inspection import integrated_gradients, layer_kernel, linear_system, selection
from statespace.layers import S5, Mamba
from statespace.lti import LinearSystem
from statespace.plotting import (
    AttributionDisplay,
    ForecastDisplay,
    ImpulseResponseDisplay,
    PolesDisplay,
    SelectionDisplay,
    TrainingDisplay,
)

RNG = np.random.default_rng(0)
T = np.cumsum(RNG.exponential(size=(12, 10)) + 0.1, axis=1)
X = RNG.normal(size=(12, 10, 2))
TWO = LinearSystem(-np.eye(2), np.eye(2), np.eye(2))
TINY = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 3, "random_state": 0}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def linear():
    return S4DRegressor(**TINY).fit(X, X[:, -1, 0], times=T)


@pytest.fixture(scope="module")
def selective():
    return MambaRegressor(**TINY).fit(X, X[:, -1, 0], times=T)


def test_training_curve(linear):
    display = TrainingDisplay.from_estimator(linear)
    loss, validation, kept = display.lines_
    np.testing.assert_array_equal(loss.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(loss.get_ydata(), linear.history_["loss"])
    np.testing.assert_array_equal(validation.get_ydata(), linear.history_["validation_loss"])
    assert kept.get_xdata()[0] == linear.best_epoch_
    assert display.ax_.get_xlabel() == "epoch"
    assert display.figure_ is display.ax_.figure
    _, ax = plt.subplots()
    other = TrainingDisplay.from_history({"loss": [100.0, 1.0, np.nan]}, ax=ax, line_kw={"color": "red"})
    assert other.ax_ is ax
    assert ax.get_yscale() == "log"
    assert other.lines_[0].get_color() == "red"
    assert TrainingDisplay.from_history({"loss": [1.0, -1.0]}).ax_.get_yscale() == "linear"


@pytest.fixture(scope="module")
def panel():
    index = pd.MultiIndex.from_product([["a", "b"], pd.RangeIndex(40)], names=["series", "time"])
    y = pd.DataFrame({"y": np.sin(np.arange(80) / 3)}, index=index)
    return S4DForecaster(**TINY | {"max_epochs": 1, "windows_per_epoch": 16}).fit(y, fh=[1, 2, 3])


def test_forecast_fan_and_training_of_a_deep_forecaster(panel):
    display = ForecastDisplay.from_estimator(panel, series="b", coverage=[0.5, 0.9])
    history, mean = display.lines_
    np.testing.assert_array_equal(history.get_ydata(), np.sin(np.arange(40, 80) / 3))
    np.testing.assert_allclose(mean.get_ydata(), panel.predict().xs("b")["y"])
    np.testing.assert_array_equal(mean.get_xdata(), [40, 41, 42])
    low = panel.predict_interval(coverage=0.9).xs("b").iloc[:, 0]
    np.testing.assert_allclose(display.bands_[0].get_paths()[0].vertices[:, 1].min(), low.min())
    with pytest.raises(ValueError, match="one of 'a', 'b'"):
        ForecastDisplay.from_estimator(panel)
    one = S4DForecaster(**TINY | {"max_epochs": 1, "windows_per_epoch": 16})
    one.fit(pd.Series(np.arange(30.0) % 7, index=pd.date_range("2024", periods=30, freq="D")), fh=[1, 2])
    assert len(ForecastDisplay.from_estimator(one).lines_[0].get_xdata()) == 30
    np.testing.assert_array_equal(TrainingDisplay.from_estimator(one).lines_[0].get_ydata(), one.history_["loss"])


def test_summary_and_system_of_a_forecaster(panel):
    table = panel.summary()
    assert table.loc["total", "parameters"] == sum(p.numel() for p in panel.model_.parameters())
    assert table.loc["encoder", "flops"] == 2 * 4 * panel.model_.stack.encoder.in_features
    assert ImpulseResponseDisplay.from_estimator(panel, length=5).gap == panel.time_scale_
    with pytest.raises(NotFittedError):
        S4DForecaster().summary()


def test_impulse_responses_and_kernels(linear):
    display = ImpulseResponseDisplay.from_estimator(linear, channels=[0, 2], length=30)
    unit = linear.time_scale_
    for place, channel in enumerate((0, 2)):
        kernel, line = display.kernel_lines_[place], display.lines_[place]
        np.testing.assert_array_equal(kernel.get_ydata(), layer_kernel(linear, 30, channel))
        expected = linear_system(linear, channel).impulse_response(line.get_xdata()).output
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-7, atol=1e-10)
    assert display.gap == unit
    assert display.lines_[0].get_xdata()[-1] == pytest.approx(29 * unit)
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["channel 0", "channel 2"]
    # Unasked it ends where the weights stay small.
    alone = ImpulseResponseDisplay.from_estimator(linear, channels=1)
    n, kernel = len(alone.kernels), np.abs(layer_kernel(linear, 1000, 1))
    assert n == 1000 or kernel[n - 2] >= 0.01 * kernel.max() > kernel[n - 1 :].max()
    assert len(ImpulseResponseDisplay.from_estimator(linear, length=5).lines_) == 4
    system = LinearSystem(-2.0, 1.0, 3.0)
    own = ImpulseResponseDisplay.from_system(system, gap=0.25, length=10)
    np.testing.assert_allclose(own.lines_[0].get_ydata(), 3 * np.exp(-2 * own.times), rtol=1e-9)
    np.testing.assert_allclose(own.kernel_lines_[0].get_ydata(), system.kernel(0.25, 10))


def test_poles(linear):
    display = PolesDisplay.from_estimator(linear, channels=1, gap=0.5)
    (points,), (on_grid,) = display.points_, display.grid_points_
    poles = linear_system(linear, 1).poles
    np.testing.assert_array_equal(points.get_xdata(), poles.real)
    np.testing.assert_array_equal(points.get_ydata(), poles.imag)
    drawn = np.sort_complex(on_grid.get_xdata() + 1j * on_grid.get_ydata())
    np.testing.assert_allclose(drawn, np.sort_complex(np.exp(0.5 * poles)), rtol=1e-9)
    assert len(PolesDisplay.from_estimator(S5(8, d_state=4)).points_) == 1
    _, axes = plt.subplots(1, 2)
    assert PolesDisplay.from_system(LinearSystem(-1.0, 1.0, 1.0), axes=axes).ax_ is axes[0]


def test_selection_over_time(selective):
    table = selection(selective, X[3:4], times=T[3:4])[0]
    display = SelectionDisplay.from_estimator(selective, X, times=T, series=3, names=["step", "gate"], order=False)
    assert [ax.get_title() for ax in display.axes_] == ["step", "gate"]
    for mesh, name in zip(display.meshes_, ("step", "gate"), strict=True):
        np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(8, 10), table[name].to_numpy().T)
    edges = display.meshes_[0].get_coordinates()[0, :, 0]
    assert len(edges) == 11
    assert ((edges[:-1] <= T[3]) & (T[3] <= edges[1:])).all()
    sorted_means = np.asarray(SelectionDisplay.from_selection(table).meshes_[1].get_array()).reshape(8, 10).mean(1)
    assert (np.diff(sorted_means) >= 0).all()
    dates = table.set_axis(pd.Timestamp("2024") + pd.to_timedelta(T[3], unit="D"))
    assert len(SelectionDisplay.from_selection(dates.iloc[:1], names="kept").meshes_) == 1


def test_attribution(linear):
    found = integrated_gradients(linear, X[5:6], times=T[5:6])
    display = AttributionDisplay.from_estimator(linear, X, times=T, series=5)
    pd.testing.assert_frame_equal(display.attribution, found.values[0])
    for channel, (line, bars) in enumerate(zip(display.lines_, display.bars_, strict=True)):
        np.testing.assert_array_equal(line.get_ydata(), X[5, :, channel])
        ends = np.array([segment[1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, np.column_stack([T[5], found.values[0][channel]]))
    assert display.ax_.get_title().startswith(f"{found.answer[0]:.4g}: the baseline's {found.baseline[0]:.4g}")
    letters = S4DClassifier(**TINY, alphabet="dna").fit(["ACGT", "TTGA", "ACCA", "GGTT"], [0, 1, 0, 1])
    assert AttributionDisplay.from_estimator(letters, ["ACGT", "AACC"], series=1).attribution.shape == (4, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda reg: TrainingDisplay.from_estimator(S4DRegressor()), "no history_ of losses"),
        (lambda reg: TrainingDisplay.from_history({"loss": []}), "no epoch"),
        (lambda reg: TrainingDisplay.from_history({"loss": [1.0]}, best_epoch=2), "not among the epochs"),
        (lambda reg: ImpulseResponseDisplay.from_estimator(Mamba(4)), "selection shows"),
        (lambda reg: ImpulseResponseDisplay.from_estimator(reg, channels=9), "from 0 to 3"),
        (lambda reg: ImpulseResponseDisplay.from_system(TWO), r"system\[0, 0\]"),
        (lambda reg: PolesDisplay.from_system(LinearSystem(0.5, 1.0, 1.0, dt=1.0)), "continuous time"),
        (lambda reg: SelectionDisplay.from_estimator(reg, X, times=T), "does not depend on its input"),
        (lambda reg: AttributionDisplay.from_attribution(pd.DataFrame(np.ones((2, 1))), np.ones((2, 3))), "shapes"),
    ],
)  # fmt: skip
def test_wrong_input(linear, call, words):
    with pytest.raises(ValueError, match=words):
        call(linear)


def test_wrong_names_and_places(selective):
    with pytest.raises(ValueError, match="'step', 'kept', 'gate'"):
        SelectionDisplay.from_estimator(selective, X, times=T, names="rate")
    with pytest.raises(IndexError, match="has 12 series"):
        SelectionDisplay.from_estimator(selective, X, times=T, series=12)
    with pytest.raises(TypeError, match="LinearSystem"):
        AttributionDisplay.from_estimator(LinearSystem(-1.0, 1.0, 1.0), X)
