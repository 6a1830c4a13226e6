"""What every layer asks of the tensors it is given: shapes of records, samples and states; gaps that can be gaps."""

import torch


def check_shapes(layer, u, state, dimensions):
    """Shapes of a record (three dimensions) or of one sample (two), and of the state.

    Parameters
    ----------
    layer : SequenceMixer
        Has ``d_model``, ``bidirectional`` and ``_state_shapes(batch_size)``, in which a size of None is any size.
    u : Tensor
    state : optional
        None is a start at rest.
    dimensions : {2, 3}

    Raises
    ------
    ValueError
        For any other shape, and for a state or a step of a bidirectional layer.
    """
    expected = ("batch", "length", "d_model") if dimensions == 3 else ("batch", "d_model")
    if u.ndim != dimensions or u.shape[-1] != layer.d_model or 0 in u.shape:
        raise ValueError(
            f"u must have shape ({', '.join(expected)}) with d_model = {layer.d_model} and no empty axis. "
            f"Got {tuple(u.shape)} instead."
        )
    if layer.bidirectional and (dimensions == 2 or state is not None):
        raise ValueError(
            f"a bidirectional {type(layer).__name__} reads the whole record: it has no step and takes no state. "
            "Use bidirectional=False."
        )
    if state is None:
        return
    # Not len(u): in a graph that is traced the size of the batch stays open.
    shapes, single = layer._state_shapes(u.shape[0]), isinstance(state, torch.Tensor)
    given = tuple(state.shape) if single else tuple(tuple(part.shape) for part in state)
    if not _fits(given, shapes):
        raise ValueError(
            f"state must have shape {shapes}, as initial_state({u.shape[0]}) gives it. Got {given} instead."
        )


def check_gaps(u, dt):
    """Gaps of a record ``u`` (batch, length, d_model).

    Raises
    ------
    ValueError
        Another shape than (batch, length), or a gap that is negative, NaN or infinite: the first one is named.
    """
    if dt.shape != u.shape[:2]:
        raise ValueError(
            f"dt must have shape {tuple(u.shape[:2])}, one gap for each step of u. Got {tuple(dt.shape)} instead."
        )
    gaps = dt.detach()
    # A graph that is exported has no values yet.
    possible = (gaps >= 0) & (gaps < torch.inf)
    if not torch.compiler.is_exporting() and not bool(possible.all()):
        series, index = torch.nonzero(~possible)[0].tolist()
        raise ValueError(
            f"dt must be finite and not negative: dt[{series}, {index}] = {gaps[series, index].item():g}. "
            "Gaps are differences of times that do not decrease."
        )


def state_at_rest(layer, batch_size):
    """Zeros in the shapes of the layer's state; an axis of any size has none."""
    if layer.bidirectional:
        raise ValueError(f"a bidirectional {type(layer).__name__} reads the whole record and has no state to pass on.")
    like, shapes = next(layer.parameters()), layer._state_shapes(batch_size)
    if isinstance(shapes[0], int):
        return like.new_zeros([size or 0 for size in shapes])
    return tuple(like.new_zeros(shape) for shape in shapes)


def _fits(given, expected):
    """Whether a shape, or a tuple of shapes, is the expected one."""
    if isinstance(expected, tuple):
        return isinstance(given, tuple) and len(given) == len(expected) and all(map(_fits, given, expected))
    return expected is None or given == expected
