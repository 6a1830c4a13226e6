"""The linear recurrence x_k = a_k x_{k-1} + b_k along the last axis."""

from statespace.kernels.dispatch import choose, is_tensor


def linear_scan(a, b, initial=None, reverse=False, *, backend=None):
    """The linear recurrence x_k = a_k x_{k-1} + b_k along the last axis.

    Parameters
    ----------
    a : ndarray or Tensor, broadcastable to the shape of ``b``
        Factors, real or complex.
    b : ndarray or Tensor of shape (..., length)
        Inputs, real or complex.
    initial : ndarray or Tensor, broadcastable to shape (...), optional
        The state before the first step; None is zero.
    reverse : bool, default False
        Run from the end, x_k = a_k x_{k+1} + b_k, ``initial`` standing after the last step.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    ndarray or Tensor of shape (..., length)
        All states. Tensors are differentiable in a, b and initial.

    Raises
    ------
    ValueError
        ``a`` or ``initial`` does not broadcast against ``b``, or ``b`` has no step.
    BackendError
        The backend asked for cannot serve the call.

    References
    ----------
    G. E. Blelloch (1990). Prefix Sums and Their Applications.
    J. T. H. Smith, A. Warrington, S. W. Linderman (2023). Simplified State Space Layers for Sequence Modeling.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import linear_scan
    >>> linear_scan(np.array(0.5), np.array([1.0, 1.0, 1.0]), initial=np.array(2.0))
    array([2., 2., 2.])
    """
    if b.ndim == 0 or b.shape[-1] == 0:
        raise ValueError(f"b must have shape (..., length) with at least one step. Got {tuple(b.shape)} instead.")
    _check_broadcast("a", a.shape, b.shape)
    if initial is not None:
        _check_broadcast("initial", initial.shape, b.shape[:-1])
    if len({is_tensor(x) for x in (a, b, initial) if x is not None}) > 1:
        raise ValueError("a, b and initial must all be NumPy arrays or all be torch tensors. Got both.")
    return choose("linear_scan", backend, a, b, initial).linear_scan(a, b, initial, reverse)


def _check_broadcast(name, shape, target):
    fits = len(shape) <= len(target) and all(
        m in (1, n) for m, n in zip(reversed(shape), reversed(target), strict=False)
    )
    if not fits:
        raise ValueError(f"{name} must broadcast to shape {tuple(target)}. Got shape {tuple(shape)} instead.")
