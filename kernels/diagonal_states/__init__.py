"""The states of a diagonal system over irregular gaps, for inputs that were projected on to the states."""

from statespace.kernels.dispatch import choose, is_tensor


def diagonal_states(v, dt, rate, initial=None, *, discretization="zoh", reverse=False, backend=None):
    """The states of a diagonal system driven over irregular gaps, one complex input for each state.

    Each state follows x' = rate (x + v), discretised over the gap Δ_k before sample k:

        x_k = x_{k-1} + d_k (x_{k-1} + v_k),    d_k = exp(rate Δ_k) - 1           (zero-order hold)
                                                d_k = rate Δ_k / (1 - rate Δ_k/2)  (bilinear)

    A system x' = Λ x + B u with read-out y = 2 Re(C x) is this one with v = B u and the read-out C / Λ: two matrix
    products around it, and never an array of the size of B at every step.

    Parameters
    ----------
    v : ndarray or Tensor of shape (batch, length, 2, states)
        Inputs: real parts, then imaginary parts, as a product of real matrices writes them.
    dt : ndarray or Tensor of shape (batch, length), or None
        Gaps, not negative; a gap of 0 leaves the state unchanged. None is 1 throughout.
    rate : ndarray or Tensor of shape (states,)
        Complex rates, no real part positive. complex128 keeps the phase exact over long gaps.
    initial : ndarray or Tensor of shape (batch, 2, states), optional
        State before the first sample; None is zero.
    discretization : {"zoh", "bilinear"}, default "zoh"
    reverse : bool, default False
        Run from the end, x_k = x_{k+1} + d_k (x_{k+1} + v_k), ``initial`` standing after the last sample.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    ndarray or Tensor of shape (batch, length, 2, states)
        All states, differentiable in v, dt, rate and initial.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, or an unknown discretization.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    Memory is that of v and of the states, linear in batch · length · states: the decays exp(rate Δ_k) are computed in
    the loop, and again in the reverse sweep.

    References
    ----------
    J. T. H. Smith, A. Warrington, S. W. Linderman (2023). Simplified State Space Layers for Sequence Modeling.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import diagonal_states
    >>> v = np.zeros((1, 3, 2, 1))
    >>> v[:, :, 0] = 1
    >>> x = diagonal_states(v, np.array([[1.0, 0.0, 2.0]]), np.array([-1.0 + 0j]))
    >>> x[0, :, 0, 0].round(6)  # exp(-t) - 1 at t = 1, 1, 3
    array([-0.632121, -0.632121, -0.950213])
    """
    if v.ndim != 4 or v.shape[2] != 2 or 0 in v.shape:
        raise ValueError(f"v must have shape (batch, length, 2, states), no axis empty. Got {tuple(v.shape)} instead.")
    B, L, _, P = v.shape
    for name, x, shape in (("dt", dt, (B, L)), ("rate", rate, (P,)), ("initial", initial, (B, 2, P))):
        if x is not None and tuple(x.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}. Got {tuple(x.shape)} instead.")
    if discretization not in ("zoh", "bilinear"):
        raise ValueError(f"discretization must be 'zoh' or 'bilinear'. Got {discretization!r} instead.")
    if len({is_tensor(x) for x in (v, dt, rate, initial) if x is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    chosen = choose("diagonal_states", backend, v, dt, rate, initial, discretization=discretization, reverse=reverse)
    return chosen.diagonal_states(v, dt, rate, initial, discretization=discretization, reverse=reverse)
