"""The kernel of a diagonal system: sums of powers of its nodes."""

from statespace.kernels.dispatch import choose, is_tensor


def vandermonde(c, x, L, *, log_nodes=False, real=False, backend=None):
    """The Vandermonde product K_l = Σ_n c_n x_n^l for l = 0 .. L - 1: the impulse response of a diagonal system.

    Parameters
    ----------
    c : ndarray or Tensor of shape (..., nodes)
        Complex weights.
    x : ndarray or Tensor, broadcastable against ``c``
        Complex nodes, or their logarithms.
    L : int
        Number of powers, at least 1.
    log_nodes : bool, default False
        ``x`` holds logarithms λ, the nodes being exp(λ). Powers are taken in float64 either way, but a node of
        modulus near 1 has already lost what matters if it comes rounded to float32; its logarithm has not.
    real : bool, default False
        Return the real part only, at half the cost.
    backend : {"triton", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    ndarray or Tensor of shape (..., L)
        Complex, or real with ``real=True``. Tensors are differentiable in c and x.

    Raises
    ------
    ValueError
        ``L`` below 1, no nodes, or shapes that do not broadcast.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    With l = iM + j and M about √L, x^l = (x^M)^i x^j: the (H, L) result is one matrix product of (L/M, 2N) by (2N, M)
    for each row, instead of an (H, N, L) array of powers.

    References
    ----------
    A. Gu, A. Gupta, K. Goel, C. Ré (2022). On the Parameterization and Initialization of Diagonal State Space Models.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import vandermonde
    >>> vandermonde(np.array([1.0 + 0j, 2.0]), np.array([0.5 + 0j, 1j]), 4, real=True).round(12)
    array([ 3.   ,  0.5  , -1.75 ,  0.125])
    """
    if L < 1:
        raise ValueError(f"L must be a positive integer. Got {L!r} instead.")
    if c.ndim == 0 or x.ndim == 0 or 0 in c.shape or 0 in x.shape:
        raise ValueError(
            f"c and x must have shape (..., nodes), no axis empty. Got {tuple(c.shape)} and {tuple(x.shape)} instead."
        )
    if any(m != n and 1 not in (m, n) for m, n in zip(reversed(c.shape), reversed(x.shape), strict=False)):
        raise ValueError(f"x must broadcast against c. Got shapes {tuple(x.shape)} and {tuple(c.shape)}.")
    if is_tensor(c) != is_tensor(x):
        raise ValueError("c and x must both be NumPy arrays or both be torch tensors. Got one of each.")
    return choose("vandermonde", backend, c, x, L).vandermonde(c, x, L, log_nodes=log_nodes, real=real)
