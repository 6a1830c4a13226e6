"""A forecaster for each layer that chooses from its input what it keeps: Mamba, Mamba-2, RWKV, DeltaNet."""

from dataclasses import dataclass

from statespace.forecasting.deep import DeepForecaster
from statespace.forecasting.ssm import small_sets
from statespace.parameters import DeltaNetParameters, Mamba2Parameters, MambaParameters, RWKVParameters


@dataclass(eq=False, repr=False)
class MambaForecaster(MambaParameters, DeepForecaster):
    """Forecasts for any horizon and query time by a stack of Mamba layers: steps that the samples choose.

    Parameters
    ----------
    d_model, n_layers, moe, periods, trend, context_length, max_horizon, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMForecaster`, ``layer="mamba"``.
    d_state : int, default=16
        Numbers in the state of each inner channel.
    d_conv, expand, dt_rank, dt_min, dt_max
        As in `statespace.MambaRegressor`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import MambaForecaster
    >>> y = pd.Series(np.sin(np.arange(60.0)), index=pd.period_range("2020-01", periods=60, freq="M"))
    >>> forecaster = MambaForecaster(d_model=8, n_layers=1, max_epochs=1, windows_per_epoch=16, random_state=0)
    >>> forecaster.fit(y).predict_interval([1, 2, 3], coverage=0.9).shape
    (3, 2)
    """

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return small_sets(d_state=4)


@dataclass(eq=False, repr=False)
class Mamba2Forecaster(Mamba2Parameters, DeepForecaster):
    """Forecasts for any horizon and query time by a stack of Mamba-2 layers: one selective decay for a head.

    Parameters
    ----------
    d_model, n_layers, moe, periods, trend, context_length, max_horizon, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMForecaster`, ``layer="mamba2"``.
    d_state : int, default=16
        Numbers in the state of each inner channel.
    d_conv, expand, head_dim, n_groups, dt_min, dt_max
        As in `statespace.Mamba2Regressor`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import Mamba2Forecaster
    >>> y = pd.Series(np.sin(np.arange(60.0)), index=pd.period_range("2020-01", periods=60, freq="M"))
    >>> forecaster = Mamba2Forecaster(d_model=8, n_layers=1, max_epochs=1, windows_per_epoch=16, random_state=0)
    >>> forecaster.fit(y).predict_interval([1, 2, 3], coverage=0.9).shape
    (3, 2)
    """

    d_state: int = 16

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return small_sets(d_state=4)


@dataclass(eq=False, repr=False)
class RWKVForecaster(RWKVParameters, DeepForecaster):
    """Forecasts for any horizon and query time by a stack of RWKV layers: averages that decay with time.

    Parameters
    ----------
    d_model, n_layers, moe, periods, trend, context_length, max_horizon, max_epochs, ...
        And all others, attributes and notes: as in `SSMForecaster`, ``layer="rwkv"``.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import RWKVForecaster
    >>> y = pd.Series(np.sin(np.arange(60.0)), index=pd.period_range("2020-01", periods=60, freq="M"))
    >>> forecaster = RWKVForecaster(d_model=8, n_layers=1, max_epochs=1, windows_per_epoch=16, random_state=0)
    >>> forecaster.fit(y).predict_interval([1, 2, 3], coverage=0.9).shape
    (3, 2)
    """

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return small_sets()


@dataclass(eq=False, repr=False)
class DeltaNetForecaster(DeltaNetParameters, DeepForecaster):
    """Forecasts for any horizon and query time by a stack of DeltaNet layers: memories that correct themselves.

    Parameters
    ----------
    d_model, n_layers, moe, periods, trend, context_length, max_horizon, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMForecaster`, ``layer="deltanet"``.
    n_heads, d_conv, gated
        As in `statespace.DeltaNetRegressor`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import DeltaNetForecaster
    >>> y = pd.Series(np.sin(np.arange(60.0)), index=pd.period_range("2020-01", periods=60, freq="M"))
    >>> forecaster = DeltaNetForecaster(d_model=8, n_layers=1, max_epochs=1, windows_per_epoch=16, random_state=0)
    >>> forecaster.fit(y).predict_interval([1, 2, 3], coverage=0.9).shape
    (3, 2)
    """

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return small_sets()
