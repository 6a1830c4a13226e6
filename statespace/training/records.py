"""Long records chunk by chunk: truncated back-propagation through time, with the state carried from chunk to chunk.

    y_c, x_c = model(u_c, x_{c−1}),    ∂x_{c−1}/∂θ = 0,    c = 1, 2, ...

A chunk begins with the state that the one before it ended with, so that the model sees the whole past; its gradient
ends where the chunk begins, so that memory does not grow with the record. A chunk that holds the whole record is plain
back-propagation.

Above: the loop. Below: torch, and any model with ``forward(x, dt, state, lengths) -> (y, state)``.

References
----------
R. J. Williams & J. Peng, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network
Trajectories", Neural Computation 2, 1990.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from statespace.training.batches import length_batches


def spans(longest: int, chunk_length: int | None) -> list[tuple[int, int | None]]:
    """Where the chunks of records of up to ``longest`` steps begin and end.

    Parameters
    ----------
    longest : int
    chunk_length : int or None
        None: one chunk without an end.

    Examples
    --------
    >>> from statespace.training.records import spans
    >>> spans(10, 4), spans(10, None)
    ([(0, 4), (4, 8), (8, 12)], [(0, None)])
    """
    if chunk_length is None:
        return [(0, None)]
    return [(start, start + chunk_length) for start in range(0, longest, chunk_length)]


def count_steps(lengths: np.ndarray, batch_size: int, chunk_length: int | None = None) -> int:
    """The steps of an optimiser in one epoch: a batch has as many as its longest record has chunks.

    With several chunks a record it is what batches of series sorted by length need, and shuffled ones a little more.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.training.records import count_steps
    >>> count_steps(np.array([10, 3, 3]), 2), count_steps(np.array([10, 3, 3]), 2, chunk_length=4)
    (2, 4)
    """
    batches: Iterator[np.ndarray] = length_batches(np.asarray(lengths), batch_size)
    return sum(len(spans(int(lengths[indices].max()), chunk_length)) for indices in batches)


class Carried:
    """A model that begins each call with the state that the call before it ended with, as a constant.

    Parameters
    ----------
    model : torch.nn.Module
        ``model(x, dt, state=state, lengths=lengths)`` returns outputs and the state.

    Attributes
    ----------
    state : object
        None before the first call.

    Examples
    --------
    >>> import torch
    >>> from statespace.models import ResidualStack
    >>> from statespace.training.records import Carried
    >>> model = ResidualStack(1, 1, d_model=4, n_layers=1, layer_options={"d_state": 4})
    >>> x = torch.randn(2, 10, 1)
    >>> carried = Carried(model)
    >>> y = torch.cat([carried(x[:, :6])[0], carried(x[:, 6:])[0]], dim=1)
    >>> torch.testing.assert_close(y, model(x)[0])
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.state: Any = None

    def __call__(self, x: Tensor, dt: Tensor | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        output, state = self.model(x, dt, state=self.state, lengths=lengths)
        self.state = tree_map_only(Tensor, Tensor.detach, state)
        return output, state

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
