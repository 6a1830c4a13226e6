"""Mamba-2's state-space duality: a selective system whose decay is one number for a head, read along packed records."""

from statespace.kernels.dispatch import choose, is_tensor


def ssd(
    x,
    dt,
    A,
    B,
    C,
    chunk_size=None,
    D=None,
    z=None,
    dt_bias=None,
    initial_states=None,
    seq_idx=None,
    dt_softplus=False,
    dt_limit=(0.0, float("inf")),
    return_final_states=False,
    *,
    gap=None,
    decay=None,
    backend=None,
):
    """The structured state-space model of Mamba-2, one decay for each head and step.

        h_k = exp(Δ_k A) h_{k-1} + Δ_k x_k B_kᵀ,    y_k = (h_k C_k + D x_k) · SiLU(z_k)

        Δ_k = clip(softplus(dt_k + dt_bias), dt_limit) · gap_k

    Each head has a state h of shape (P, N), a number A, and a step Δ_k; the heads of a group share B_k and C_k. The
    arguments are those of mamba_ssm's ``mamba_chunk_scan_combined``; ``gap``, ``backend`` and gradients in all floating
    arguments come on top.

    Parameters
    ----------
    x : ndarray or Tensor of shape (batch, length, heads, P)
        Inputs, any length.
    dt : ndarray or Tensor of shape (batch, length, heads)
        Steps, before bias, softplus, limits and gap.
    A : ndarray or Tensor of shape (heads,), or None
        Real rates, as a rule negative; None with ``decay``.
    B, C : ndarray or Tensor of shape (batch, length, groups, N)
        Input and read-out of each sample; ``heads`` is a multiple of ``groups``, neighbouring heads make a group.
    chunk_size : int, optional
        Steps that one matrix product of the dual form takes in; it changes the time and the memory that backend
        ``"pytorch"`` takes, no result. The loops of others have no chunks, and ``"triton"`` chooses. None chooses.
    D : ndarray or Tensor of shape (heads,) or (heads, P), optional
        Skip; None is zero.
    z : ndarray or Tensor of shape (batch, length, heads, P), optional
        Gate; None is no gate.
    dt_bias : ndarray or Tensor of shape (heads,), optional
        Added to ``dt``.
    initial_states : ndarray or Tensor of shape (batch, heads, P, N), optional
        States before the first sample, of the sequence that this sample belongs to; None is zero.
    seq_idx : ndarray or Tensor of int of shape (batch, length), optional
        Which of several sequences, packed one behind the other, a sample belongs to: where it changes, the state starts
        from zero.
    dt_softplus : bool, default False
        Take the softplus of ``dt``.
    dt_limit : tuple of float, default (0, inf)
        Limits of the step, before the gap: without softplus, negative steps become 0.
    return_final_states : bool, default False
    gap : ndarray or Tensor of shape (batch, length), optional
        Time since the sample before, which multiplies the steps of all heads; None is 1. A gap of 0 leaves the states
        as they were.
    decay : ndarray or Tensor of shape (batch, length, heads), optional
        Logarithms of the decays of every sample, not positive, in the place of Δ_k A; the gap is in them already.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    y : ndarray or Tensor of shape (batch, length, heads, P)
        In the type of x.
    final_states : ndarray or Tensor of shape (batch, heads, P, N)
        States after the last sample, in float32 at least; only with ``return_final_states``. Both are differentiable in
        x, dt, A, B, C, D, z, dt_bias, initial_states, gap and decay.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, limits out of order, a chunk of no steps, arrays and tensors mixed, or
        not one of A and decay.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    Memory is linear in length · (heads · P + groups · N), plus one state for every chunk: states of all steps,
    (batch, length, heads, P, N), are never stored.

    References
    ----------
    T. Dao, A. Gu (2024). Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
    Space Duality, section 6.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import ssd
    >>> x, dt = np.ones((1, 3, 1, 1)), np.full((1, 3, 1), 0.5)
    >>> B = C = np.ones((1, 3, 1, 1))
    >>> y, final = ssd(x, dt, np.array([-1.0]), B, C, gap=np.array([[1.0, 0.0, 2.0]]), return_final_states=True)
    >>> y.ravel().round(6)  # 0.5; nothing passes; exp(-1) 0.5 + 1
    array([0.5    , 0.5    , 1.18394])
    >>> final.shape
    (1, 1, 1, 1)
    """
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"x must have shape (batch, length, heads, P), no axis empty. Got {tuple(x.shape)} instead.")
    batch, L, H, P = x.shape
    if B.ndim != 4 or tuple(B.shape[:2]) != (batch, L) or 0 in B.shape or H % B.shape[2]:
        raise ValueError(
            f"B must have shape ({batch}, {L}, groups, N) with a number of groups that divides {H} heads. "
            f"Got {tuple(B.shape)} instead."
        )
    N = B.shape[3]
    per_channel = D is not None and D.ndim == 2
    expected = {
        "dt": (dt, (batch, L, H)), "A": (A, (H,)), "C": (C, B.shape), "D": (D, (H, P) if per_channel else (H,)),
        "z": (z, x.shape), "dt_bias": (dt_bias, (H,)), "initial_states": (initial_states, (batch, H, P, N)),
        "seq_idx": (seq_idx, (batch, L)), "gap": (gap, (batch, L)), "decay": (decay, (batch, L, H)),
    }  # fmt: skip
    for name, (array, shape) in expected.items():
        if array is not None and tuple(array.shape) != tuple(shape):
            raise ValueError(f"{name} must have shape {tuple(shape)}. Got {tuple(array.shape)} instead.")
    if len({is_tensor(array) for array in (x, B, *(a for a, _ in expected.values())) if array is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be a positive integer. Got {chunk_size!r} instead.")
    if (A is None) == (decay is None):
        raise ValueError(f"give one of A and decay, and None for the other. Got {'neither' if A is None else 'both'}.")
    lowest, highest = dt_limit
    if not lowest <= highest:
        raise ValueError(f"dt_limit must be (lowest, highest) in this order. Got {dt_limit!r} instead.")
    arguments = (
        x, dt, A, B, C, chunk_size, D, z, dt_bias, initial_states, seq_idx, dt_softplus, dt_limit, return_final_states,
    )  # fmt: skip
    return choose("ssd", backend, *arguments, gap=gap, decay=decay).ssd(*arguments, gap=gap, decay=decay)
