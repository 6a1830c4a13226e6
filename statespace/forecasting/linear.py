"""A forecaster for each linear layer: S4, S4D, S5, H3."""

from dataclasses import dataclass

from statespace.forecasting.deep import DeepForecaster
from statespace.forecasting.ssm import small_sets
from statespace.parameters import H3Parameters, S4DParameters, S4Parameters, S5Parameters


@dataclass(eq=False, repr=False)
class S4DForecaster(S4DParameters, DeepForecaster):
    """Forecasts for any horizon and query time by a stack of S4D layers: diagonal linear systems in continuous time.

    Parameters
    ----------
    d_model, n_layers, periods, trend, context_length, max_horizon, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMForecaster`, ``layer="s4d"``.
    d_state : int, default=16
        Real dimension of each system's state.
    init : {"lin", "inv", "legs", "real"}, default="lin"
        Starting values of A; see `statespace.layers.S4D`.
    discretization : {"zoh", "bilinear"}, default="zoh"
        Zero-order hold or the bilinear rule.
    dt_min, dt_max : float, default=1e-3 and 1e-1
        The systems' time scales start between 1 / dt_max and 1 / dt_min median gaps.

    References
    ----------
    .. [1] A. Gu, A. Gupta, K. Goel, C. Ré, "On the Parameterization and Initialization of Diagonal State Space Models",
       2022.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import S4DForecaster
    >>> t = np.cumsum(np.random.default_rng(0).exponential(size=200))
    >>> start = pd.Timestamp("2020-01-01")
    >>> y = pd.Series(np.sin(2 * np.pi * t / 7), index=start + pd.to_timedelta(t, unit="D"))
    >>> forecaster = S4DForecaster(d_model=8, n_layers=1, periods=[7], max_epochs=2, random_state=0).fit(y)
    >>> ahead = np.array([1.5, 5.0])
    >>> horizon = start + pd.to_timedelta(t[-1] + ahead, unit="D")
    >>> error = forecaster.predict(horizon) - np.sin(2 * np.pi * (t[-1] + ahead) / 7)
    >>> bool(error.abs().max() < 0.1)
    True
    >>> forecaster.predict_interval(horizon, coverage=0.9).shape
    (2, 2)
    """

    d_state: int = 16

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return small_sets(d_state=4)


@dataclass(eq=False, repr=False)
class S5Forecaster(S5Parameters, DeepForecaster):
    """Forecasts for any horizon and query time by a stack of S5 layers: one system for all channels.

    Parameters
    ----------
    d_model, n_layers, periods, trend, context_length, max_horizon, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMForecaster`, ``layer="s5"``.
    d_state : int, default=16
        Real dimension of the system's state.
    n_blocks, init, discretization, dt_min, dt_max
        As in `statespace.S5Regressor`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import S5Forecaster
    >>> y = pd.Series(np.sin(np.arange(60.0)), index=pd.period_range("2020-01", periods=60, freq="M"))
    >>> forecaster = S5Forecaster(d_model=8, n_layers=1, max_epochs=1, windows_per_epoch=16, random_state=0)
    >>> forecaster.fit(y).predict_interval([1, 2, 3], coverage=0.9).shape
    (3, 2)
    """

    d_state: int = 16

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return small_sets(d_state=4)


@dataclass(eq=False, repr=False)
class H3Forecaster(H3Parameters, DeepForecaster):
    """Forecasts for any horizon and query time by a stack of H3 layers: two systems and two gates.

    Parameters
    ----------
    d_model, n_layers, periods, trend, context_length, max_horizon, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMForecaster`, ``layer="h3"``.
    d_state : int, default=16
        Real dimension of each diagonal system's state.
    d_shift, head_dim, init, discretization, dt_min, dt_max
        As in `statespace.H3Regressor`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import H3Forecaster
    >>> y = pd.Series(np.sin(np.arange(60.0)), index=pd.period_range("2020-01", periods=60, freq="M"))
    >>> forecaster = H3Forecaster(d_model=8, n_layers=1, max_epochs=1, windows_per_epoch=16, random_state=0)
    >>> forecaster.fit(y).predict_interval([1, 2, 3], coverage=0.9).shape
    (3, 2)
    """

    d_state: int = 16

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return small_sets(d_state=4)


@dataclass(eq=False, repr=False)
class S4Forecaster(S4Parameters, DeepForecaster):
    """Forecasts for any horizon and query time by a stack of S4 layers: diagonal plus low-rank systems.

    Parameters
    ----------
    d_model, n_layers, periods, trend, context_length, max_horizon, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMForecaster`, ``layer="s4"``.
    d_state : int, default=16
        Real dimension of each system's state.
    measure, rank, dt_min, dt_max
        As in `statespace.S4Regressor`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import S4Forecaster
    >>> y = pd.Series(np.sin(np.arange(60.0)), index=pd.period_range("2020-01", periods=60, freq="M"))
    >>> forecaster = S4Forecaster(d_model=8, n_layers=1, max_epochs=1, windows_per_epoch=16, random_state=0)
    >>> forecaster.fit(y).predict_interval([1, 2, 3], coverage=0.9).shape
    (3, 2)
    """

    d_state: int = 16

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return small_sets(d_state=4)
