"""The causal convolution of a record with a kernel as long as itself."""

from statespace.kernels.dispatch import choose, is_tensor


def long_convolution(u, k, *, backend=None):
    """The causal convolution y_t = Σ_{s <= t} k_s u_{t-s} of every channel with its own kernel.

    Parameters
    ----------
    u : ndarray or Tensor of shape (batch, channels, length)
        Real inputs; float16 and bfloat16 are summed in float32.
    k : ndarray or Tensor of shape (channels, kernel_length)
        Real kernels, of any length.
    backend : {"cupy", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    ndarray or Tensor of shape (batch, channels, length)
        Tensors are differentiable in u and k.

    Raises
    ------
    ValueError
        Shapes that do not fit, or an empty axis.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    Computed by real FFTs of the next length with small prime factors; a record much longer than its kernel is cut
    into blocks whose tails are carried on. The kernel is transformed once for the whole batch and for both passes.
    Records of any length are transformed in pieces, so that memory beside the result is bounded. Rounding is absolute,
    not relative: about the type's precision times the largest output. On a CPU a kernel of up to some hundred taps is
    applied by the sum itself.

    On a GPU with CuPy a record that fits into shared memory, 32,768 samples or blocks of a longer one, is read and
    written once, transforms and product between; longer kernels take two more passes through memory.

    References
    ----------
    A. Gu, K. Goel, C. Ré (2022). Efficiently Modeling Long Sequences with Structured State Spaces, section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import long_convolution
    >>> long_convolution(np.array([[[1.0, 0.0, 2.0]]]), np.array([[1.0, 0.5]])).round(12)
    array([[[1. , 0.5, 2. ]]])
    """
    if u.ndim != 3 or k.ndim != 2 or u.shape[1] != k.shape[0] or 0 in u.shape or 0 in k.shape:
        raise ValueError(
            "u must have shape (batch, channels, length) and k (channels, kernel_length), no axis empty. "
            f"Got {tuple(u.shape)} and {tuple(k.shape)} instead."
        )
    if is_tensor(u) != is_tensor(k):
        raise ValueError("u and k must both be NumPy arrays or both be torch tensors. Got one of each.")
    return choose("long_convolution", backend, u, k).long_convolution(u, k)
