"""A diagonal system on a regular grid as a convolution in blocks: matrix products, and a state from block to block."""

from statespace.kernels.dispatch import choose, is_tensor, on_gpu


def diagonal_convolution(u, rate, c, initial=None, lengths=None, skip=None, *, discretization="zoh", backend=None):
    """A diagonal system driven on a regular grid and read out, y_k = Re Σ_n c_n x_k,n + D u_k.

    The recurrence of `diagonal_scan` with all gaps 1,

        x_k = x_{k-1} + d (x_{k-1} + u_k),    d = exp(rate) - 1  (zero-order hold)  or  rate / (1 - rate/2)  (bilinear),

    computed as a convolution with K_l = Re Σ_n c_n d_n (1 + d_n)^l, block by block.

    Parameters
    ----------
    u : ndarray or Tensor of shape (batch, channels, length)
        Real inputs; float16 and bfloat16 are summed in float32.
    rate : ndarray or Tensor of shape (channels, nodes)
        Complex rates per step, no real part positive. The tables are made in complex128 and then cast.
    c : ndarray or Tensor of shape (channels, nodes)
        Complex read-out.
    initial : ndarray or Tensor of shape (batch, channels, nodes), optional
        Complex state before the first sample; None is zero.
    lengths : ndarray or Tensor of int of shape (batch,), optional
        The number of real steps of each record, if its end is padding: the state is the one there, the initial one
        for a record of padding alone.
    skip : ndarray or Tensor of shape (channels,), optional
        D; None is zero.
    discretization : {"zoh", "bilinear"}, default "zoh"
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    y : ndarray or Tensor of shape (batch, channels, length)
        Of no meaning where a record's end is padding.
    state : ndarray or Tensor of shape (batch, channels, nodes)
        The state after the last (real) sample. Both are differentiable in u, rate, c, initial
        and skip.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, a length out of range, or an unknown discretization.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    The cost is linear in the length, with T + 4 · nodes multiplications or so for each sample and channel in blocks of
    T = 32 or 64; it is matrix products throughout, the backward too. The chunked form of state-space duality (Dao & Gu
    2024, section 6) is this one for a diagonal system that does not depend on its input.

    References
    ----------
    A. Gu, A. Gupta, K. Goel, C. Ré (2022). On the Parameterization and Initialization of Diagonal State Space Models.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import diagonal_convolution
    >>> y, state = diagonal_convolution(np.ones((1, 1, 3)), np.array([[-1.0 + 0j]]), np.array([[-1.0 + 0j]]))
    >>> y.round(6)  # 1 - exp(-t) at t = 1, 2, 3
    array([[[0.632121, 0.864665, 0.950213]]])
    """
    if u.ndim != 3 or 0 in u.shape:
        raise ValueError(f"u must have shape (batch, channels, length), no axis empty. Got {tuple(u.shape)} instead.")
    B, H, L = u.shape
    if rate.ndim != 2 or len(rate) != H or 0 in rate.shape:
        raise ValueError(f"rate must have shape (channels, nodes) with {H} channels. Got {tuple(rate.shape)} instead.")
    nodes = rate.shape
    expected = {"c": (c, nodes), "initial": (initial, (B, *nodes)), "lengths": (lengths, (B,)), "skip": (skip, (H,))}
    for name, (x, shape) in expected.items():
        if x is not None and x.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}. Got {tuple(x.shape)} instead.")
    # To look at numbers on a GPU is to wait for it.
    checked = lengths is not None and not on_gpu(lengths)
    if checked and not (lengths.min() >= 0 and lengths.max() <= L):
        raise ValueError(f"lengths must lie between 0 and {L}. Got {lengths.min()} to {lengths.max()}.")
    if discretization not in ("zoh", "bilinear"):
        raise ValueError(f"discretization must be 'zoh' or 'bilinear'. Got {discretization!r} instead.")
    if len({is_tensor(x) for x in (u, rate, c, initial, lengths, skip) if x is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    arguments = u, rate, c, initial, lengths, skip
    chosen = choose("diagonal_convolution", backend, *arguments, discretization=discretization)
    return chosen.diagonal_convolution(*arguments, discretization=discretization)
