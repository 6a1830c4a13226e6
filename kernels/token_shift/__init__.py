"""Mixes of each sample and the one before, channel by channel."""

from statespace.kernels.dispatch import choose, is_tensor


def token_shift(u, mix, register=None, *, backend=None):
    """Mixes of each sample and the one before, x_j,k = u_{k-1} + μ_j ⊙ (u_k - u_{k-1}).

    Parameters
    ----------
    u : ndarray or Tensor of shape (batch, length, channels)
    mix : ndarray or Tensor of shape (mixes, channels)
        μ: 1 is the sample itself, 0 the one before.
    register : ndarray or Tensor of shape (batch, channels), optional
        The sample before the first one; None is zero.
    backend : {"cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    x : tuple of ndarray or Tensor of shape (batch, length, channels)
        One for each mix, differentiable in all arguments.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, or arrays and tensors mixed.
    BackendError
        The backend asked for cannot serve the call.

    References
    ----------
    B. Peng et al. (2023). RWKV: Reinventing RNNs for the Transformer Era. Section 3.1.1.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import token_shift
    >>> before, between = token_shift(np.array([[[1.0], [2.0], [4.0]]]), np.array([[0.0], [0.5]]))
    >>> before[..., 0], between[..., 0]
    (array([[0., 1., 2.]]), array([[0.5, 1.5, 3. ]]))
    """
    if u.ndim != 3 or 0 in u.shape:
        raise ValueError(f"u must have shape (batch, length, channels), no axis empty. Got {tuple(u.shape)} instead.")
    B, _, D = u.shape
    if mix.ndim != 2 or mix.shape[1] != D or not len(mix):
        raise ValueError(f"mix must have shape (mixes, {D}) with at least one mix. Got {tuple(mix.shape)} instead.")
    if register is not None and tuple(register.shape) != (B, D):
        raise ValueError(f"register must have shape {(B, D)}. Got {tuple(register.shape)} instead.")
    if len({is_tensor(x) for x in (u, mix, register) if x is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    return choose("token_shift", backend, u, mix, register).token_shift(u, mix, register)
