"""The short causal convolution of every channel, with bias, activation and the register that carries it on."""

from statespace.kernels.dispatch import choose, is_tensor, on_gpu


def causal_conv1d(
    x,
    weight,
    bias=None,
    seq_idx=None,
    initial_states=None,
    return_final_states=False,
    activation=None,
    *,
    lengths=None,
    backend=None,
):
    """The causal convolution of every channel with its own few taps, y_t = φ(b + Σ_{j < W} w_{W-1-j} x_{t-j}).

    φ is the identity or SiLU, p / (1 + exp(-p)). What lies before the record is ``initial_states``, or zero.

    Parameters
    ----------
    x : ndarray or Tensor of shape (batch, channels, length)
        Real inputs. Tensors with channels last in memory, as linear layers give them, are read and answered so.
    weight : ndarray or Tensor of shape (channels, W)
        The taps; the last one meets the present sample.
    bias : ndarray or Tensor of shape (channels,), optional
    seq_idx : ndarray or Tensor of int of shape (batch, length), optional
        The sequence that each step belongs to, where several are packed into a record. Where the number changes, a new
        sequence begins, which sees nothing of the one before.
    initial_states : ndarray or Tensor of shape (batch, channels, W - 1), optional
        The last samples before each record, the latest one last; None is zero.
    return_final_states : bool, default False
        Return the register at the end as well.
    activation : {None, "silu", "swish"}, default None
        The last two are one.
    lengths : ndarray or Tensor of int of shape (batch,), optional
        The real steps of each record, which come first; None: all are real. The final state is that after them. On a
        GPU they are not checked, which would have the processor wait.
    backend : {"triton", "cpu", "pytorch", "reference"}, optional
        None takes the best that can serve the call.

    Returns
    -------
    y : ndarray or Tensor of shape (batch, channels, length)
        In the type of x; sums are taken in float32 at least. Of no meaning beyond ``lengths``.
    final_states : ndarray or Tensor of shape (batch, channels, W - 1)
        With ``return_final_states``: the last samples of each record's last sequence, zeros before its beginning. Both
        are differentiable in x, weight, bias and initial_states.

    Raises
    ------
    ValueError
        Shapes that do not fit, an empty axis, an unknown activation, or lengths outside 0 … length.
    BackendError
        The backend asked for cannot serve the call.

    Notes
    -----
    Arguments and shapes are those of ``causal_conv1d_fn`` in Dao-AILab's causal-conv1d, for any W, and with
    ``seq_idx`` and states together: the initial state belongs to a record's first sequence.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels import causal_conv1d
    >>> x, weight = np.array([[[1.0, 2.0, 3.0]]]), np.array([[10.0, 1.0]])
    >>> y, state = causal_conv1d(x, weight, return_final_states=True)
    >>> y, state
    (array([[[ 1., 12., 23.]]]), array([[[3.]]]))
    """
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"x must have shape (batch, channels, length), no axis empty. Got {tuple(x.shape)} instead.")
    B, D, L = x.shape
    if weight.ndim != 2 or len(weight) != D or 0 in weight.shape:
        raise ValueError(f"weight must have shape (channels, W) with {D} channels. Got {tuple(weight.shape)} instead.")
    W = weight.shape[1]
    expected = {
        "bias": (bias, (D,)),
        "seq_idx": (seq_idx, (B, L)),
        "initial_states": (initial_states, (B, D, W - 1)),
        "lengths": (lengths, (B,)),
    }
    for name, (given, shape) in expected.items():
        if given is not None and given.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}. Got {tuple(given.shape)} instead.")
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"activation must be None, 'silu' or 'swish'. Got {activation!r} instead.")
    arguments = x, weight, bias, seq_idx, initial_states
    if len({is_tensor(given) for given in (*arguments, lengths) if given is not None}) > 1:
        raise ValueError("all arguments must be NumPy arrays, or all torch tensors. Got both.")
    if lengths is not None and not on_gpu(lengths) and not bool(((lengths >= 0) & (lengths <= L)).all()):
        raise ValueError(f"lengths must be within 0 and {L}, the length of x. Got {lengths.tolist()} instead.")
    arguments = *arguments, bool(return_final_states), activation
    return choose("causal_conv1d", backend, *arguments).causal_conv1d(*arguments, lengths=lengths)
