"""One step of the selective scan, for streams."""

from statespace.kernels.dispatch import choose, is_tensor


def selective_state_update(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False, *, backend=None):
    """One step of the selective scan: the output and the state after it.

        state' = exp(h A) state + h B x,    y = C state' + D x,    h = softplus(dt + dt_bias)

    (``dt + dt_bias`` itself without ``dt_softplus``; over a gap Δ, pass Δ times the step). Of complex states, the
    other half of conjugate pairs, the read-out is 2 Re(C state'). With ``z``, y is multiplied by silu(z).

    Parameters
    ----------
    state : ndarray or Tensor of shape (batch, channels, states) or (batch, heads, channels, states)
        The state before the sample. It is not written to.
    x : ndarray or Tensor of shape (batch, channels) or (batch, heads, channels)
        The sample.
    dt : ndarray or Tensor of the shape of ``x``
        Its step, before the bias and softplus.
    A : ndarray or Tensor of shape (channels, states) or (heads, channels, states)
        Real or complex rates.
    B, C : ndarray or Tensor of shape (batch, states) or (batch, groups, states)
        Input and read-out, shared by all heads or by those of a group; without heads a group has channels.
    D : ndarray or Tensor of shape (channels,) or (heads, channels), optional
    z : ndarray or Tensor of the shape of ``x``, optional
    dt_bias : ndarray or Tensor of shape (channels,) or (heads, channels), optional
    dt_softplus : bool, default False
    backend : {"triton", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    y : ndarray or Tensor of the shape of ``x``
        In its type.
    new_state : ndarray or Tensor of the shape of ``state``
        In float32 at least. Both are differentiable in every argument.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, or arrays and tensors mixed.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    The arguments are those of ``selective_state_update`` in mamba_ssm, which returns y alone and overwrites the state;
    this one returns the new state and leaves the given one as it is, so that gradients pass through.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import selective_state_update
    >>> state, one = np.ones((1, 1, 1)), np.ones((1, 1))
    >>> y, state = selective_state_update(state, one, 2 * one, A=-one, B=one, C=one)
    >>> y.round(6)  # exp(-2) + 2
    array([[2.135335]])
    """
    if state.ndim not in (3, 4) or 0 in state.shape:
        raise ValueError(
            "state must have shape (batch, channels, states) or (batch, heads, channels, states), no axis empty. "
            f"Got {tuple(state.shape)} instead."
        )
    batch, *own, states = state.shape
    own = tuple(own)
    expected = {
        "x": (x, (batch, *own)),
        "dt": (dt, (batch, *own)),
        "A": (A, (*own, states)),
        "D": (D, own),
        "z": (z, (batch, *own)),
        "dt_bias": (dt_bias, own),
    }
    for name, (value, shape) in expected.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}. Got {tuple(value.shape)} instead.")
    for name, value in (("B", B), ("C", C)):
        shape, groups = tuple(value.shape), value.shape[1] if value.ndim == 3 else 1
        if shape not in ((batch, states), (batch, groups, states)) or groups == 0 or own[0] % groups:
            kind = "heads" if len(own) == 2 else "channels"
            raise ValueError(
                f"{name} must have shape (batch, states) = {(batch, states)} or (batch, groups, states), the number of "
                f"groups dividing that of {kind}, {own[0]}. Got {shape} instead."
            )
    arguments = state, x, dt, A, B, C, D, z, dt_bias
    if len({is_tensor(value) for value in arguments if value is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    chosen = choose("selective_state_update", backend, *arguments, bool(dt_softplus))
    return chosen.selective_state_update(*arguments, bool(dt_softplus))
