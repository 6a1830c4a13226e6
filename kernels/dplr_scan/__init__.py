"""The scan of a diagonal plus low-rank system over irregular gaps, with its read-out, states never stored."""

from statespace.kernels.dispatch import choose, is_tensor


def dplr_scan(u, dt, Lambda, P, B, C, initial=None, *, backend=None):
    """A diagonal plus low-rank system driven over irregular gaps by the bilinear rule and read out.

        x_k = (I − Δ_k/2 A)^{-1} ((I + Δ_k/2 A) x_{k-1} + Δ_k B u_k),    y_k = 2 Re(C x_k),    A = Λ − P P*

    Arrays hold one of each conjugate pair of states: the other half is the conjugate, so that P* x = 2 Re Σ_n P̄_n x_n.

    Parameters
    ----------
    u : ndarray or Tensor of shape (batch, channels, length)
        Real inputs.
    dt : ndarray or Tensor of shape (batch, length), or None
        Gaps Δ, not negative; a gap of 0 leaves the state unchanged. None is 1 throughout.
    Lambda : ndarray or Tensor of shape (channels, pairs)
        Complex, no real part positive.
    P : ndarray or Tensor of shape (channels, rank, pairs)
        Complex; the system is stable for every P.
    B, C : ndarray or Tensor of shape (channels, pairs)
        Complex input and read-out.
    initial : ndarray or Tensor of shape (batch, channels, pairs), optional
        Complex state before the first sample; None is zero.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    y : ndarray or Tensor of shape (batch, channels, length)
    state : ndarray or Tensor of shape (batch, channels, pairs)
        The state after the last sample. Both are differentiable in all of the arguments.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, or arrays and tensors mixed.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    A step costs O(pairs · rank) by Woodbury's identity. The states, (batch, channels, pairs, length), are never stored,
    but computed again from checkpoints in the reverse sweep.

    References
    ----------
    A. Gu, K. Goel, C. Ré (2022). Efficiently Modeling Long Sequences with Structured State Spaces, appendix C.2.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import dplr_scan
    >>> row = np.full((1, 1), 0.5 + 0j)  # one pair of states with A = -1/2 - 1/2 [[1, 1], [1, 1]]
    >>> y, state = dplr_scan(np.ones((1, 1, 3)), np.array([[1.0, 0.0, 2.0]]), -row, row[None] * 2**0.5, row, row)
    >>> y.round(6)  # it relaxes to 1/3 at a rate of 3/2
    array([[[0.285714, 0.285714, 0.342857]]])
    """
    if u.ndim != 3 or 0 in u.shape:
        raise ValueError(f"u must have shape (batch, channels, length), no axis empty. Got {tuple(u.shape)} instead.")
    batch, H, L = u.shape
    if Lambda.ndim != 2 or len(Lambda) != H or 0 in Lambda.shape:
        raise ValueError(
            f"Lambda must have shape (channels, pairs) with {H} channels. Got {tuple(Lambda.shape)} instead."
        )
    pairs = Lambda.shape[1]
    if P.ndim != 3 or (P.shape[0], P.shape[2]) != (H, pairs) or P.shape[1] == 0:
        raise ValueError(f"P must have shape ({H}, rank, {pairs}), rank at least 1. Got {tuple(P.shape)} instead.")
    expected = {
        "dt": (dt, (batch, L)), "B": (B, (H, pairs)), "C": (C, (H, pairs)),
        "initial": (initial, (batch, H, pairs)),
    }  # fmt: skip
    for name, (x, shape) in expected.items():
        if x is not None and x.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}. Got {tuple(x.shape)} instead.")
    if len({is_tensor(x) for x in (u, dt, Lambda, P, B, C, initial) if x is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    arguments = u, dt, Lambda, P, B, C, initial
    return choose("dplr_scan", backend, *arguments).dplr_scan(*arguments)
