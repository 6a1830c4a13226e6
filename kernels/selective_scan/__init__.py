"""The selective scan: a diagonal system whose step, input and read-out change from sample to sample."""

from statespace.kernels.dispatch import choose, is_tensor


def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
    *,
    initial_state=None,
    dt=None,
    backend=None,
):
    """Mamba's recurrence and its read-out, y_k = C_k x_k + D u_k, states never stored.

    The state of channel d, N numbers, follows

        x_k = exp(h_k A) x_{k-1} + h_k B_k u_k,    h_k = Δ_k · softplus(delta_k + delta_bias)

    (``delta_k + delta_bias`` itself without ``delta_softplus``). Of complex states, the other half of conjugate pairs,
    the read-out is 2 Re(C_k x_k). With ``z``, y is multiplied by silu(z).

    Parameters
    ----------
    u : ndarray or Tensor of shape (batch, channels, length)
        Inputs. In memory the channels may come last, as linear layers leave them; they are then read in place.
    delta : ndarray or Tensor of shape (batch, channels, length)
        Steps, before the bias and softplus.
    A : ndarray or Tensor of shape (channels, states)
        Real or complex rates.
    B, C : ndarray or Tensor of shape (channels, states), (batch, states, length) or (batch, groups, states, length)
        Input and read-out: constant, or of each sample and shared by all channels, or by those of a group (as many
        consecutive channels in each). Complex ones are allowed.
    D : ndarray or Tensor of shape (channels,), optional
        Direct term; None is zero.
    z : ndarray or Tensor of shape (batch, channels, length), optional
        Gate.
    delta_bias : ndarray or Tensor of shape (channels,), optional
    delta_softplus : bool, default False
    return_last_state : bool, default False
        Return the state after the last sample as well.
    initial_state : ndarray or Tensor of shape (batch, channels, states), optional
        The state before the first sample; None is zero.
    dt : ndarray or Tensor of shape (batch, length), optional
        The gap Δ before each sample; a gap of 0 leaves the state as it is. None is 1 throughout.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    y : ndarray or Tensor of shape (batch, channels, length)
        In the type of ``u``.
    last_state : ndarray or Tensor of shape (batch, channels, states)
        With ``return_last_state`` only; in float32 at least, complex where A, B, C or the initial state is.
        Both are differentiable in every argument.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, or arrays and tensors mixed.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    The arguments are those of ``selective_scan_fn`` in mamba_ssm, and ``initial_state`` and ``dt``; complex B and C are
    complex arrays, not pairs of reals along the length. Memory is linear in batch · channels · length: the states,
    (batch, channels, states, length), are computed again from checkpoints in the reverse sweep.

    References
    ----------
    .. [1] A. Gu, T. Dao (2023). Mamba: Linear-Time Sequence Modeling with Selective State Spaces. Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import selective_scan
    >>> u = np.array([[[1.0, 0.0, 0.0]]])
    >>> A, B, C = np.array([[-1.0]]), np.ones((1, 1, 3)), np.ones((1, 1, 3))
    >>> selective_scan(u, np.ones((1, 1, 3)), A, B, C, dt=np.array([[1.0, 0.0, 2.0]])).round(6)
    array([[[1.      , 1.      , 0.135335]]])
    """
    if u.ndim != 3 or 0 in u.shape:
        raise ValueError(f"u must have shape (batch, channels, length), no axis empty. Got {tuple(u.shape)} instead.")
    batch, channels, length = u.shape
    shape = tuple(A.shape)
    if len(shape) != 2 or shape[0] != channels or 0 in shape:
        raise ValueError(f"A must have shape (channels, states) with {channels} channels. Got {shape} instead.")
    states = A.shape[1]
    for name, x in (("B", B), ("C", C)):
        _check_coefficients(name, x, batch, channels, states, length)
    expected = {
        "delta": (delta, (batch, channels, length)),
        "D": (D, (channels,)),
        "z": (z, (batch, channels, length)),
        "delta_bias": (delta_bias, (channels,)),
        "initial_state": (initial_state, (batch, channels, states)),
        "dt": (dt, (batch, length)),
    }
    for name, (x, shape) in expected.items():
        if x is not None and tuple(x.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}. Got {tuple(x.shape)} instead.")
    arrays = u, delta, A, B, C, D, z, delta_bias, initial_state, dt
    if len({is_tensor(x) for x in arrays if x is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    arguments = *arrays[:8], bool(delta_softplus), bool(return_last_state)
    options = {"initial_state": initial_state, "dt": dt}
    return choose("selective_scan", backend, *arguments, **options).selective_scan(*arguments, **options)


def _check_coefficients(name, x, batch, channels, states, length):
    shape, groups = tuple(x.shape), x.shape[1] if x.ndim == 4 else 1
    fits = shape in ((channels, states), (batch, states, length), (batch, groups, states, length))
    if not fits or groups == 0 or channels % groups:
        raise ValueError(
            f"{name} must have shape (channels, states) = {(channels, states)}, (batch, states, length) = "
            f"{(batch, states, length)} or (batch, groups, states, length), the number of groups dividing that of "
            f"channels, {channels}. Got {shape} instead."
        )
