"""The delta rule: a matrix that maps keys to values, corrected by a part of its error at each step."""

from statespace.kernels.dispatch import choose, is_tensor

SHORTEST = 1e-3  # queries and keys below this length are divided by it: the gradient at zero stays finite


def delta_rule(q, k, v, beta, decay=None, initial_state=None, *, chunk_size=None, qk_l2norm=False, backend=None):
    """The (gated) delta rule of linear attention, all steps of a record at once.

        S_t = α_t S_{t-1} + β_t k_t (v_t - (α_t S_{t-1})ᵀ k_t)ᵀ,    o_t = S_tᵀ q_t,    α_t = exp(decay_t)

    Each step compares the value that the state gives for a key with the one that is written, and moves the state by a
    part β of the difference: α (I - β k kᵀ) S + β k vᵀ.

    Parameters
    ----------
    q, k : ndarray or Tensor of shape (batch, length, heads, d_key)
        Queries and keys. They are taken as they are, with no factor 1/√d_key, unless ``qk_l2norm``.
    v : ndarray or Tensor of shape (batch, length, heads, d_value)
        Values.
    beta : ndarray or Tensor of shape (batch, length, heads)
        Strength of the writing. The state stays bounded for 0 <= β kᵀk <= 2; beyond 1 the factor of the old value, 1 -
        β kᵀk, is negative. A step with β = 0 and no decay leaves the state as it was.
    decay : ndarray or Tensor of shape (batch, length, heads), optional
        Logarithms of the factors α, not above 0; None is the ungated rule, α = 1.
    initial_state : ndarray or Tensor of shape (batch, heads, d_key, d_value), optional
        State before the first step; None is zero.
    chunk_size : int, optional
        Steps that are taken together as matrix products; it changes the speed and the rounding only. None is what suits
        the backend. "cpu" has chunks of 16 steps and no others, "triton" of 16, 32 or 64.
    qk_l2norm : bool, default False
        Divide queries and keys by their norms first, those shorter than 0.001 by 0.001.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    o : ndarray or Tensor of shape (batch, length, heads, d_value)
        In the type of ``v``.
    state : ndarray or Tensor of shape (batch, heads, d_key, d_value)
        After the last step, in float32 at least. Both are differentiable in q, k, v, beta, decay and initial_state.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, a chunk size that is no positive integer, arrays and tensors mixed.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    Work is linear in the length. The states of all steps are never stored: the compiled loops keep one in 16 · ⌈d_key /
    32⌉ steps for the gradient, no more numbers than two arrays of values have where the heads fill whole vectors of 16.

    References
    ----------
    .. [1] S. Yang, B. Wang, Y. Zhang, Y. Shen, Y. Kim (2024). Parallelizing Linear Transformers with the Delta Rule
       over Sequence Length. Sections 2.2 and 3.
    .. [2] S. Yang, J. Kautz, A. Hatamizadeh (2024). Gated Delta Networks: Improving Mamba2 with Delta Rule. Section 3.

    Examples
    --------
    A key that comes again replaces its value; with β = 1 nothing of the old one is left:

    >>> import numpy as np
    >>> from statespace.kernels import delta_rule
    >>> k = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).reshape(1, 3, 1, 2)
    >>> v = np.array([5.0, 7.0, 9.0]).reshape(1, 3, 1, 1)
    >>> o, state = delta_rule(k, k, v, np.ones((1, 3, 1)))
    >>> o.ravel()
    array([5., 7., 9.])
    >>> state.ravel()
    array([9., 7.])
    """
    if k.ndim != 4 or 0 in k.shape:
        raise ValueError(
            f"k must have shape (batch, length, heads, d_key), no axis empty. Got {tuple(k.shape)} instead."
        )
    B, L, H, K = k.shape
    if v.ndim != 4 or tuple(v.shape[:3]) != (B, L, H) or v.shape[3] == 0:
        raise ValueError(f"v must have shape ({B}, {L}, {H}, d_value), as k has. Got {tuple(v.shape)} instead.")
    V = v.shape[3]
    expected = {
        "q": (q, (B, L, H, K)), "beta": (beta, (B, L, H)), "decay": (decay, (B, L, H)),
        "initial_state": (initial_state, (B, H, K, V)),
    }  # fmt: skip
    for name, (x, shape) in expected.items():
        if x is not None and tuple(x.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}. Got {tuple(x.shape)} instead.")
    if chunk_size is not None and (chunk_size != int(chunk_size) or chunk_size < 1):
        raise ValueError(f"chunk_size must be a positive integer or None. Got {chunk_size!r} instead.")
    if len({is_tensor(x) for x in (q, k, v, beta, decay, initial_state) if x is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    arguments = q, k, v, beta, decay, initial_state
    chosen = choose("delta_rule", backend, *arguments, chunk_size=chunk_size)
    return chosen.delta_rule(*arguments, chunk_size=chunk_size, qk_l2norm=qk_l2norm)
