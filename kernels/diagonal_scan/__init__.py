"""The scan of a diagonal system over irregular gaps, with its read-out, states never stored."""

from statespace.kernels.dispatch import choose, is_tensor


def diagonal_scan(u, dt, rate, c, initial=None, skip=None, *, discretization="zoh", backend=None):
    """A diagonal system driven over irregular gaps and read out, y_k = Re Σ_n c_n x_k,n + D u_k.

    The state of each node follows x' = rate (x + u), discretised over the gap Δ_k before sample k:

        x_k = x_{k-1} + d_k (x_{k-1} + u_k),    d_k = exp(rate Δ_k) - 1           (zero-order hold)
                                                d_k = rate Δ_k / (1 - rate Δ_k/2)  (bilinear)

    A system x' = A x + B u with read-out C is this one with c = C B / A.

    Parameters
    ----------
    u : ndarray or Tensor of shape (batch, channels, length)
        Real inputs.
    dt : ndarray or Tensor of shape (batch, length), or None
        Gaps, not negative; a gap of 0 leaves the state unchanged. None is 1 throughout.
    rate : ndarray or Tensor of shape (channels, nodes)
        Complex rates, no real part positive. complex128 keeps the phase exact over long gaps.
    c : ndarray or Tensor of shape (channels, nodes)
        Complex read-out.
    initial : ndarray or Tensor of shape (batch, channels, nodes), optional
        Complex state before the first sample; None is zero.
    skip : ndarray or Tensor of shape (channels,), optional
        D; None is zero.
    discretization : {"zoh", "bilinear"}, default "zoh"
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    y : ndarray or Tensor of shape (batch, channels, length)
    state : ndarray or Tensor of shape (batch, channels, nodes)
        The state after the last sample. Both are differentiable in u, dt, rate, c, initial
        and skip.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, or an unknown discretization.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    Memory is linear in batch · channels · length: the states, (batch, channels, nodes, length), are never stored, but
    computed again from checkpoints in the reverse sweep.

    References
    ----------
    A. Gu, A. Gupta, K. Goel, C. Ré (2022). On the Parameterization and Initialization of Diagonal State Space Models.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import diagonal_scan
    >>> u, dt = np.ones((1, 1, 3)), np.array([[1.0, 0.0, 2.0]])
    >>> y, state = diagonal_scan(u, dt, np.array([[-1.0 + 0j]]), np.array([[-1.0 + 0j]]))
    >>> y.round(6)  # 1 - exp(-t) at t = 1, 1, 3
    array([[[0.632121, 0.632121, 0.950213]]])
    """
    if u.ndim != 3 or 0 in u.shape:
        raise ValueError(f"u must have shape (batch, channels, length), no axis empty. Got {tuple(u.shape)} instead.")
    B, H, L = u.shape
    if rate.ndim != 2 or len(rate) != H or 0 in rate.shape:
        raise ValueError(f"rate must have shape (channels, nodes) with {H} channels. Got {tuple(rate.shape)} instead.")
    expected = {"dt": (dt, (B, L)), "c": (c, rate.shape), "initial": (initial, (B, *rate.shape)), "skip": (skip, (H,))}
    for name, (x, shape) in expected.items():
        if x is not None and x.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}. Got {tuple(x.shape)} instead.")
    if discretization not in ("zoh", "bilinear"):
        raise ValueError(f"discretization must be 'zoh' or 'bilinear'. Got {discretization!r} instead.")
    if len({is_tensor(x) for x in (u, dt, rate, c, initial, skip) if x is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    arguments = u, dt, rate, c, initial, skip
    chosen = choose("diagonal_scan", backend, *arguments, discretization=discretization)
    return chosen.diagonal_scan(*arguments, discretization=discretization)
