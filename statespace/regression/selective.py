"""A regressor for each layer that chooses from its input what it keeps: Mamba, Mamba-2, RWKV, DeltaNet."""

from dataclasses import dataclass

from statespace.parameters import DeltaNetParameters, Mamba2Parameters, MambaParameters, RWKVParameters
from statespace.regression.ssm import DeepRegressor


@dataclass(eq=False, repr=False)
class MambaRegressor(MambaParameters, DeepRegressor):
    """Regression on series with a stack of Mamba layers: systems whose steps the samples themselves choose.

    Each of ``n_layers`` blocks runs s_k = exp(h_k A) s_{k-1} + h_k B_k x_k, y_k = C_k s_k + D x_k, h_k = softplus(W x_k
    + b) Δ_k: the input says how fast time passes for the state, the gap how much time has passed [1]_.

    Parameters
    ----------
    d_model, n_layers, moe, bidirectional, dropout, pooling, target, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMRegressor`, ``layer="mamba"``.
    d_state : int, default=16
        Numbers in the state of each inner channel.
    d_conv : int, default=4
        Samples that the short convolution reads, the present one included.
    expand : float, default=2
        Inner channels in units of ``d_model``.
    dt_rank : int or "auto", default="auto"
        Rank of the step's projection; ``"auto"`` is d_model / 16, rounded up.
    dt_min, dt_max : float, default=1e-3 and 1e-1
        The range in which the channels' steps start, in median gaps.

    References
    ----------
    .. [1] A. Gu, T. Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import MambaRegressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = MambaRegressor(d_model=8, n_layers=1, d_state=4, max_epochs=2, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    """


@dataclass(eq=False, repr=False)
class Mamba2Regressor(Mamba2Parameters, DeepRegressor):
    """Regression on series with a stack of Mamba-2 layers: selective systems with one decay for a head.

    Each of ``n_layers`` blocks runs H_k = exp(h_k a) H_{k-1} + h_k x_k B_kᵀ, y_k = H_k C_k + D x_k for each head of its
    channels, with one number a a head and steps h_k = softplus(w·u_k + b) Δ_k over the gaps that the samples have [1]_.

    Parameters
    ----------
    d_model, n_layers, moe, bidirectional, dropout, pooling, target, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMRegressor`, ``layer="mamba2"``.
    d_state : int, default=64
        Numbers in the state of each inner channel.
    d_conv : int, default=4
        Samples that the short convolution reads, the present one included.
    expand : int, default=2
        Inner channels in units of ``d_model``.
    head_dim : int, optional
        Channels of a head; None is 64, or what below divides them.
    n_groups : int, default=1
        Groups of heads, which share B and C.
    dt_min, dt_max : float, default=1e-3 and 1e-1
        The range in which the heads' steps start, in median gaps.

    References
    ----------
    .. [1] T. Dao, A. Gu, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
       Space Duality", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import Mamba2Regressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = Mamba2Regressor(d_model=8, n_layers=1, d_state=4, max_epochs=2, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    """


@dataclass(eq=False, repr=False)
class RWKVRegressor(RWKVParameters, DeepRegressor):
    """Regression on series with a stack of RWKV layers: averages whose weights decay with time.

    Each of ``n_layers`` blocks averages all values so far with weights e^k, of which each channel forgets at a rate of
    its own over the gaps that the samples really have, behind a gate: RWKV's time mixing [1]_. The block's gated unit
    stands where the paper has its channel mixing.

    Parameters
    ----------
    d_model, n_layers, moe, bidirectional, dropout, pooling, target, max_epochs, ...
        And all others, attributes and notes: as in `SSMRegressor`, ``layer="rwkv"``.

    References
    ----------
    .. [1] B. Peng et al., "RWKV: Reinventing RNNs for the Transformer Era", 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import RWKVRegressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = RWKVRegressor(d_model=8, n_layers=1, max_epochs=2, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    """


@dataclass(eq=False, repr=False)
class DeltaNetRegressor(DeltaNetParameters, DeepRegressor):
    """Regression on series with a stack of DeltaNet layers: memories that correct themselves.

    Each of ``n_layers`` blocks holds matrices from keys to values and corrects them at each sample by a part β of their
    error for its key, S_k = (I - β k kᵀ) S_{k-1} + β k vᵀ [1]_, over the gaps that the samples really have.

    Parameters
    ----------
    d_model, n_layers, moe, bidirectional, dropout, pooling, target, max_epochs, ...
        And all others but the following, attributes and notes: as in `SSMRegressor`, ``layer="deltanet"``.
    n_heads : int, optional
        Heads, a divisor of ``d_model``; None is 4, or what below divides it.
    d_conv : int or None, default=4
        Samples that the short convolutions read, the present one included; None has none.
    gated : bool, default=False
        Let the memory forget, too, by a gate for each head [2]_.

    References
    ----------
    .. [1] S. Yang, B. Wang, Y. Zhang, Y. Shen, Y. Kim, "Parallelizing Linear Transformers with the Delta Rule over
       Sequence Length", 2024.
    .. [2] S. Yang, J. Kautz, A. Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import DeltaNetRegressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = DeltaNetRegressor(d_model=8, n_layers=1, max_epochs=2, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    """
