"""A regressor for each linear layer: S4, S4D, S5, H3."""

from dataclasses import dataclass

from statespace.parameters import H3Parameters, S4DParameters, S4Parameters, S5Parameters
from statespace.regression.ssm import DeepRegressor


@dataclass(eq=False, repr=False)
class S4DRegressor(S4DParameters, DeepRegressor):
    """Regression on series with a stack of S4D layers: diagonal linear systems in continuous time, between gated units.

    Each of ``n_layers`` blocks runs ``d_model`` linear systems x'(t) = A x(t) + B u(t), y(t) = C x(t) + D u(t) with
    diagonal A over the gaps that the samples really have, and mixes their outputs by a gated linear unit [1]_.

    Parameters
    ----------
    d_model, n_layers, bidirectional, dropout, pooling, target, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMRegressor`, ``layer="s4d"``.
    d_state : int, default=64
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
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = S4DRegressor(d_model=8, n_layers=1, d_state=8, max_epochs=5, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    >>> stream = reg.stream()
    >>> for x_k, gap in zip(X[0], np.diff(t[0], prepend=t[0, 0])):
    ...     running = stream.step(x_k, dt=gap)
    >>> bool(np.isclose(running, reg.predict(X[:1], times=t[:1])[0]))
    True
    """


@dataclass(eq=False, repr=False)
class S5Regressor(S5Parameters, DeepRegressor):
    """Regression on series with a stack of S5 layers: one system for all channels.

    Each of ``n_layers`` blocks runs one linear system x'(t) = A x(t) + B u(t), y(t) = C x(t) + D u(t), to which all
    ``d_model`` channels write and which they all read [1]_, over the gaps that the samples really have.

    Parameters
    ----------
    d_model, n_layers, bidirectional, dropout, pooling, target, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMRegressor`, ``layer="s5"``.
    d_state : int, default=64
        Real dimension of the system's state.
    n_blocks : int, default=1
        A starts as so many HiPPO matrices of size d_state / n_blocks on its diagonal.
    init : {"legs", "legt", "lagt", "fourier"}, default="legs"
        The HiPPO measure from which A starts; see `statespace.layers.S5`.
    discretization : {"zoh", "bilinear"}, default="zoh"
        Zero-order hold or the bilinear rule.
    dt_min, dt_max : float, default=1e-3 and 1e-1
        The states' time scales start between 1 / dt_max and 1 / dt_min median gaps.

    References
    ----------
    .. [1] J. T. H. Smith, A. Warrington, S. W. Linderman, "Simplified State Space Layers for Sequence Modeling", 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S5Regressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = S5Regressor(d_model=8, n_layers=1, d_state=8, max_epochs=2, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    """


@dataclass(eq=False, repr=False)
class H3Regressor(H3Parameters, DeepRegressor):
    """Regression on series with a stack of H3 layers: two systems and two gates.

    Each of ``n_layers`` blocks recalls what followed when a key was last seen: s = diagonal(shift(k) vᵀ), y = W (qᵀ s)
    with projections q, k, v of its input, a shift system, and a diagonal one over the gaps that the samples really have
    [1]_.

    Parameters
    ----------
    d_model, n_layers, bidirectional, dropout, pooling, target, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMRegressor`, ``layer="h3"``.
    d_state : int, default=64
        Real dimension of each diagonal system's state.
    d_shift : int, optional
        Samples that the shift system reads, the present one included; None is ``d_state``.
    head_dim : int, default=1
        Channels of a head, whose keys and values are multiplied each with each.
    init : {"lin", "inv", "legs", "real", "random"}, default="lin"
        Starting values of the diagonal systems; see `statespace.layers.H3`.
    discretization : {"zoh", "bilinear"}, default="zoh"
        Zero-order hold or the bilinear rule.
    dt_min, dt_max : float, default=1e-3 and 1e-1
        The systems' time scales start between 1 / dt_max and 1 / dt_min median gaps.

    References
    ----------
    .. [1] D. Y. Fu, T. Dao, K. K. Saab, A. W. Thomas, A. Rudra, C. Ré, "Hungry Hungry Hippos: Towards Language Modeling
       with State Space Models", 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import H3Regressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = H3Regressor(d_model=8, n_layers=1, d_state=8, max_epochs=2, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    """


@dataclass(eq=False, repr=False)
class S4Regressor(S4Parameters, DeepRegressor):
    """Regression on series with a stack of S4 layers: diagonal plus low-rank systems.

    Each of ``n_layers`` blocks runs ``d_model`` linear systems x'(t) = A x(t) + B u(t), y(t) = C x(t) + D u(t) over the
    gaps that the samples really have. A is diagonal plus low-rank and starts as a HiPPO matrix [1]_.

    Parameters
    ----------
    d_model, n_layers, bidirectional, dropout, pooling, target, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMRegressor`, ``layer="s4"``.
    d_state : int, default=64
        Real dimension of each system's state.
    measure : {"legs", "legt", "lagt", "fourier", "legsd", "foud"}, default="legs"
        The HiPPO measure from which A and B start; see `statespace.layers.S4`.
    rank : int, optional
        Rank of the low-rank part; None is the least that the measure needs.
    dt_min, dt_max : float, default=1e-3 and 1e-1
        The systems' time scales start between 1 / dt_max and 1 / dt_min median gaps.

    References
    ----------
    .. [1] A. Gu, K. Goel, C. Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4Regressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = S4Regressor(d_model=8, n_layers=1, d_state=8, max_epochs=2, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    """
