"""SSMForecaster: probabilistic forecasts by a stack of any layers.

Above: the user. Below: ``deep`` fits and forecasts; `statespace.parameters` names the layers.
"""

from dataclasses import dataclass

from statespace.forecasting.deep import DeepForecaster
from statespace.parameters import SSMParameters

# For sktime's tests.
TINY = {"n_layers": 1, "d_model": 4, "max_epochs": 1, "windows_per_epoch": 4, "device": "cpu", "random_state": 0}


@dataclass(eq=False, repr=False)
class SSMForecaster(DeepForecaster, SSMParameters):
    """Forecasts by one network for any horizon and query time: layers over the history, one step to each query.

    The observed values before a time, at most ``context_length`` of them, are its context. By least squares on the
    context alone the **baseline** takes out level, trend, known seasons and covariates
    (`statespace.forecasting.baseline.Baseline`), and what is left is divided by its spread. A stack of layers reads
    it as tokens (value, observed, log gap, covariates) over the gaps that the observations really have, and
    leaves a state. A query is a token without value, whose gap is the time since the last observation: one step of the
    recurrence takes the state there, and the output is the distribution **of a value at the query's own time**, as
    quantiles that cannot cross, on top of the baseline.

    Every query steps from the state after the last observation and from no other query. A forecast for a time is
    therefore the same whatever else is asked for.

    Training draws windows at random from the series, or from all series of a panel (one model for all): where the
    history ends, how much of it is read, and which of the next values within ``max_horizon`` are asked for. The loss is
    the pinball loss of the quantiles, in units of each window's spread. Point forecasts are medians.

    Time is counted in steps of the frequency on a PeriodIndex or a DatetimeIndex with a ``freq``, in the index' own
    units if it holds integers, and in days on any other DatetimeIndex; ``time_unit`` sets a unit. Horizons may be
    absolute, Timedeltas, or integers, which are steps of the frequency, units of an integer index, and median gaps on
    an irregular DatetimeIndex.

    Parameters
    ----------
    layer : str or sequence of str, default="s4d"
        Name of the layer, a key of `statespace.layers.LAYERS`, or a pattern of names that is repeated over the blocks.
    d_model : int, default=32
        Width of the features.
    n_layers : int, default=2
        Number of blocks.
    layer_options : mapping, optional
        Arguments of the layer, such as ``{"d_state": 16}``. With a pattern: a mapping from name to such a mapping.
    backbone : {"stack", "sashimi"}, default="stack"
        The network around the layers: a residual stack, or blocks on several time scales for long records; see
        `statespace.models.SaShiMi`, in which ``n_layers`` counts the blocks of each scale.
    backbone_options : mapping, optional
        Arguments of the network that the estimator has no parameter for, such as ``{"factors": (4, 4)}``.
    moe : int or mapping, optional
        A number of experts: a feed-forward map follows each layer, and every other one of them is a mixture of so many
        experts, of which each step takes two, as in Jamba [1]_. A mapping sets ``"n_experts"``, ``"every"`` and
        what else `statespace.models.ResidualStack` has. None: no such maps.
    periods : sequence of float, optional
        Periods of known seasons, in the unit of time of the index: 365.25 for a year where days are counted, 12 on
        months. Three harmonics of each are covariates, known at all times.
    static : DataFrame, optional
        Covariates that do not change, one row of numbers for each series of a panel, whose label (or labels, in a
        MultiIndex) the index holds; with rows for series that come in ``update`` too. Columns of X that are constant in
        a series say the same, but have to be given at every time.
    trend : {"auto", "last", "mean", "linear"}, default="auto"
        The baseline beside seasons and covariates: the last value, the mean of the context, or a straight line through
        it. ``"auto"`` takes the one with the least absolute error on random training windows.
    context_length : int, default=256
        The most observations that a forecast reads. No more than half of the longest series are used, so that training
        has such windows too.
    max_horizon : float, optional
        The longest horizon in training, in the unit of time of the index. None: a quarter of the longest series, or the
        longest horizon of ``fh`` in ``fit``, up to half of the series. Horizons beyond it rest on extrapolation.
    dropout : float, default=0.2
        Share of each block's outputs dropped while training.
    max_epochs : int, default=6
        Epochs of training; the weights of the one with the least loss are kept.
    windows_per_epoch : int, default=256
        Windows drawn in an epoch.
    queries_per_window : int, default=16
        Future values asked for after each.
    batch_size : int, default=16
        Windows a step of the optimiser.
    learning_rate : float, default=4e-3
        Largest rate of AdamW; it rises over the first tenth of the steps and falls to 0 along a cosine.
    ssm_learning_rate : float or mapping, default=1e-3
        The same for A, B and the time scales, which have no weight decay; a mapping such as ``{"A": 1e-4, "B": 1e-3,
        "dt": 1e-3}`` gives each its own. What it leaves out learns at ``learning_rate``.
    weight_decay : float, default=0.01
        Decoupled weight decay of the weight matrices.
    gradient_clip : float or None, default=1.0
        Largest norm of the gradient.
    time_unit : str, optional
        The unit in which datetimes are counted, such as "h" or "365.25D", also on a regular index. None: steps of the
        frequency where there is one, else days.
    device : str or torch.device, default="auto"
        ``"auto"`` takes a CUDA device where there is one. The fitted model itself is kept on the CPU.
    precision : {"float32", "bfloat16"}, default="float32"
        Of the products of matrices in training, for GPUs; see `statespace.training.fit`. Predictions are not affected.
    checkpoint : str or os.PathLike, optional
        A file in which the training in `fit` is kept, after every epoch.
    resume : bool, default=False
        Go on from the ``checkpoint``, if there is one, where training was cut off; the result is that without the
        cut. The data and all other parameters have to be the same.
    callbacks : sequence, optional
        `statespace.training.Callback` objects, or functions ``f(epoch, history, model)``, called after every epoch; a
        true answer stops training.
    calibrate : bool, default=False
        Train on the first part of every series and calibrate the quantiles with the last, by horizon: each is moved
        until it has its level among the held-out forecasts (split conformal prediction [2]_). Intervals then cover
        what they say, as far as errors of one horizon are exchangeable between that part and the future.
    calibration_fraction : float, default=0.2
        The share of the observations of each series that is held out for that. Horizons longer than that part are
        corrected as the longest in it.
    random_state : int, RandomState instance or None, default=None
        Initial weights, windows, dropout. An int gives the same numbers twice.
    verbose : int, default=0
        Above 0: progress bar and device.

    Attributes
    ----------
    model_ : QueryModel
        The fitted network.
    trend_ : str
        The trend of the baseline.
    time_scale_ : float
        The median gap, in the unit of time of the index: what the network's gaps are divided by.
    max_horizon_, context_length_ : float, int
        Those used.
    value_scale_ : float
        The spread that a context without any is given.
    X_mean_, X_scale_ : ndarray of shape (n_columns,)
        Mean and standard deviation of the covariates; only with X.
    static_mean_, static_scale_ : ndarray of shape (n_static,)
        The same of the static covariates; only with those.
    calibration_ : Calibration or None
        The corrections of quantiles by horizon; None without ``calibrate``.
    history_ : DataFrame
        The loss of every epoch of the last training: the pinball loss summed over the quantile levels.

    Raises
    ------
    ValueError
        If y has no value; if X has no row for a time that is forecast; if a horizon is of another kind than the index.

    Notes
    -----
    A value of y that is missing (NaN) says nothing: it is as if its row were not there. Missing covariates count as
    their mean.

    In-sample forecasts are one step ahead: each reads the observations before its time alone, though the weights have
    been trained on all. At a series' first time nothing is known before it; the forecast there is the distribution of
    all training values. ``fitted_values`` and ``predict_residuals`` give them for all times in one pass, in which each
    observation is read a few times at the most.

    ``update`` adds to the history, and with ``update_params=True`` trains the present network on for a fifth of
    ``max_epochs``. With False it carries the network's state on over the new values alone, and the forecasts are those
    of reading everything anew; after every quarter of ``context_length`` the window moves on, and is read once.

    Several columns of y each get a forecaster of their own. To share one network among them, make them series of a
    panel.

    Between the eleven levels of the network quantiles are interpolated linearly in Φ⁻¹(level), with normal tails;
    ``predict_var`` is the variance of that distribution. Distributions are those of single times: there is no
    covariance between times.

    References
    ----------
    .. [1] O. Lieber et al., "Jamba: A Hybrid Transformer-Mamba Language Model", 2024.
    .. [2] Y. Romano, E. Patterson & E. Candès, "Conformalized Quantile Regression", 2019, section 4.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import SSMForecaster
    >>> t = np.cumsum(np.random.default_rng(0).exponential(size=200))
    >>> start = pd.Timestamp("2020-01-01")
    >>> y = pd.Series(np.sin(2 * np.pi * t / 7), index=start + pd.to_timedelta(t, unit="D"))
    >>> forecaster = SSMForecaster("s4d", d_model=8, n_layers=1, periods=[7], max_epochs=2, random_state=0).fit(y)
    >>> ahead = np.array([1.5, 5.0])
    >>> horizon = start + pd.to_timedelta(t[-1] + ahead, unit="D")
    >>> error = forecaster.predict(horizon) - np.sin(2 * np.pi * (t[-1] + ahead) / 7)
    >>> bool(error.abs().max() < 0.1)
    True
    >>> forecaster.predict_interval(horizon, coverage=0.9).shape
    (2, 2)
    """

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        return [
            TINY | {"layer_options": {"d_state": 4}, "queries_per_window": 2, "context_length": 8},
            TINY | {"layer": ["s4d"], "periods": [7.0], "trend": "linear", "max_horizon": 5.0},
        ]


def small_sets(**options):
    """Two small parameter sets for sktime's tests of a forecaster named after its layer."""
    tiny = TINY | options
    return [
        tiny | {"queries_per_window": 2, "context_length": 8},
        tiny | {"periods": [7.0], "trend": "linear", "max_horizon": 5.0},
    ]
