"""Sums of simple fractions over the states of a system, one sum for each node of its transfer function."""

from statespace.kernels.dispatch import choose, is_tensor


def cauchy(v, z, w, *, conjugate=False, backend=None):
    """The Cauchy product k_l = Σ_n v_n / (z_l − w_n), optionally with every pair's other half, v̄_n / (z_l − w̄_n).

    Parameters
    ----------
    v : ndarray or Tensor of shape (..., states)
        Complex weights.
    z : ndarray or Tensor of shape (..., nodes)
        Complex nodes, none equal to a pole; its leading axes broadcast against those of ``v``.
    w : ndarray or Tensor of shape (..., states)
        Complex poles; broadcast against ``v``.
    conjugate : bool, default False
        Add the terms of the conjugate poles: ``v`` and ``w`` are one of each conjugate pair.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    ndarray or Tensor of shape (..., nodes)
        Complex. Tensors are differentiable in v, z and w.

    Raises
    ------
    ValueError
        An empty axis, shapes that do not broadcast, or arrays and tensors mixed.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    Near a pole the difference z − w cancels: z and w should come as complex128. Memory is that of the arguments and the
    result, not of the (..., states, nodes) matrix. Several ``v`` over the same poles, an axis of ``w`` and ``z`` of
    length 1 next to the last one, share the reciprocals.

    References
    ----------
    A. Gu, K. Goel, C. Ré (2022). Efficiently Modeling Long Sequences with Structured State Spaces, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import cauchy
    >>> cauchy(np.array([1.0 + 0j, 2.0]), np.array([1.0 + 0j, 3.0]), np.array([0j, 2.0])).real.round(6)
    array([-1.      ,  2.333333])
    """
    for name, x in (("v", v), ("z", z), ("w", w)):
        if x.ndim == 0 or 0 in x.shape:
            raise ValueError(f"{name} must have an axis and no empty one. Got shape {tuple(x.shape)} instead.")
    pairs = [*zip(reversed(v.shape), reversed(w.shape), strict=False)]
    leading = [reversed(x.shape[:-1]) for x in (v, z)], [reversed(x.shape[:-1]) for x in (w, z)]
    for shapes in leading:
        pairs += zip(*shapes, strict=False)
    if any(m != n and 1 not in (m, n) for m, n in pairs):
        raise ValueError(
            "v, z and w must have shapes (..., states), (..., nodes) and (..., states) that broadcast. "
            f"Got {tuple(v.shape)}, {tuple(z.shape)} and {tuple(w.shape)}."
        )
    if len({is_tensor(x) for x in (v, z, w)}) > 1:
        raise ValueError("v, z and w must all be NumPy arrays, or all torch tensors. Got both.")
    return choose("cauchy", backend, v, z, w).cauchy(v, z, w, conjugate=conjugate)
