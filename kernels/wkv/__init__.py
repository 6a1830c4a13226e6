"""RWKV-4's average of values, weighted by keys that decay with time."""

from statespace.kernels.dispatch import choose, is_tensor


def wkv(w, u, k, v, state=None, dt=None, *, backend=None):
    """RWKV-4's average of values, weighted by the exponentials of their keys, which decay with the time gone by.

        y_n = (Σ_{i<n} p_i v_i + e^{u + k_n} v_n) / (Σ_{i<n} p_i + e^{u + k_n}),    p_i = e^{k_i - w (t_n - t_i - 1)}

    where t_n = Δ_1 + … + Δ_n is the time of sample n. With all gaps 1 the exponent is k_i - w (n - i - 1), as in the
    paper: a sample of one unit ago has its full weight. A gap of 0 is padding: it is no sample, and its y is 0.

    Parameters
    ----------
    w : ndarray or Tensor of shape (channels,)
        Rates of decay per unit of time, not negative. (The paper's code keeps log w.)
    u : ndarray or Tensor of shape (channels,)
        Bonus of the current sample.
    k, v : ndarray or Tensor of shape (batch, length, channels)
        Keys, logarithms of weights, and values.
    state : ndarray or Tensor of shape (batch, channels, 3), optional
        Numerator a, denominator b and exponent o of the sums before the first sample, a e^o and b e^o. Any such triple
        is taken, also one in which b is not 1; b = 0 is a past without samples, to which no gradient flows. None is
        zeros, which is the same.
    dt : ndarray or Tensor of shape (batch, length), optional
        Gap Δ before each sample, not negative; None is 1 throughout.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    y : ndarray or Tensor of shape (batch, length, channels)
    state : ndarray or Tensor of shape (batch, channels, 3)
        After the last sample, in one form for all triples of the same sums: the mean of the past, 1, and the logarithm
        of its weight; zeros if there was no sample. In float32 at least. Both are differentiable in all arguments.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, or arrays and tensors mixed.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    No exponential of a positive number is ever taken: keys of ±1000 are as good as others. Memory is linear in
    batch · length · channels.

    References
    ----------
    B. Peng et al. (2023). RWKV: Reinventing RNNs for the Transformer Era. Equation 16 and appendix D.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import wkv
    >>> v, zero = np.array([[[3.0], [6.0], [0.0]]]), np.zeros(1)
    >>> y, state = wkv(zero, zero, np.zeros((1, 3, 1)), v)  # without decay and with equal keys: the mean so far
    >>> y[0, :, 0]
    array([3. , 4.5, 3. ])
    >>> y, state = wkv(np.log([2.0]), zero, np.zeros((1, 3, 1)), v, dt=np.array([[1.0, 2.0, 1.0]]))
    >>> y[0, :, 0].round(6)  # two units later, the first value counts half as much as the second
    array([3., 5., 3.])
    """
    if k.ndim != 3 or 0 in k.shape:
        raise ValueError(f"k must have shape (batch, length, channels), no axis empty. Got {tuple(k.shape)} instead.")
    B, L, D = k.shape
    expected = {"w": (w, (D,)), "u": (u, (D,)), "v": (v, (B, L, D)), "state": (state, (B, D, 3)), "dt": (dt, (B, L))}
    for name, (x, shape) in expected.items():
        if x is not None and tuple(x.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}. Got {tuple(x.shape)} instead.")
    if len({is_tensor(x) for x in (w, u, k, v, state, dt) if x is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    arguments = w, u, k, v, state, dt
    return choose("wkv", backend, *arguments).wkv(*arguments)
