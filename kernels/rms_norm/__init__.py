"""The root-mean-square norm of the last axis, with Mamba-2's gate before it."""

from statespace.kernels.dispatch import choose, is_tensor


def rms_norm(x, weight, z=None, *, eps=1e-5, group_size=None, backend=None):
    """The root-mean-square norm of gated channels, each group on its own.

        y = w · v / √(mean(v²) + ε),    v = x · SiLU(z),    SiLU(z) = z / (1 + exp(-z))

    Parameters
    ----------
    x : ndarray or Tensor of shape (..., channels)
    weight : ndarray or Tensor of shape (channels,)
    z : ndarray or Tensor of shape (..., channels), optional
        Gate; None is no gate, v = x.
    eps : float, default 1e-5
    group_size : int, optional
        Neighbouring channels that share a mean, a divisor of the channels. None: all.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    ndarray or Tensor of shape (..., channels)
        In the type of x, differentiable in x, weight and z. Means are taken in float32 at least.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, groups that do not divide the channels, or arrays and tensors mixed.
    BackendError
        The backend asked for cannot serve the call.

    References
    ----------
    B. Zhang, R. Sennrich (2019). Root Mean Square Layer Normalization. The gate: T. Dao, A. Gu (2024). Transformers are
    SSMs, section 7.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import rms_norm
    >>> rms_norm(np.array([[3.0, -4.0]]), np.array([1.0, 10.0])).round(4)
    array([[ 0.8485, -11.3137]])
    """
    if x.ndim < 1 or 0 in x.shape:
        raise ValueError(f"x must have shape (..., channels), no axis empty. Got {tuple(x.shape)} instead.")
    channels = x.shape[-1]
    if tuple(weight.shape) != (channels,):
        raise ValueError(f"weight must have shape ({channels},). Got {tuple(weight.shape)} instead.")
    if z is not None and tuple(z.shape) != tuple(x.shape):
        raise ValueError(f"z must have shape {tuple(x.shape)}. Got {tuple(z.shape)} instead.")
    size = channels if group_size is None else group_size
    if size < 1 or channels % size:
        raise ValueError(f"group_size must divide the {channels} channels. Got {group_size!r} instead.")
    if len({is_tensor(a) for a in (x, weight, z) if a is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    options = {"eps": float(eps), "group_size": size}
    return choose("rms_norm", backend, x, weight, z, **options).rms_norm(x, weight, z, **options)
