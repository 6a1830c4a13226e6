"""Batches in which every sequence is as likely to be read on its own strand as on the other."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from statespace.models.strands import along, reverse_complement
from statespace.training.batches import SeriesBatches


class RandomStrands:
    """Batches whose sequences are replaced by their reverse complements with probability 1/2, drawn anew each time.

    Gaps, targets and weights a step are reversed with them.

    Parameters
    ----------
    data : SeriesBatches
        With padding behind each record, if any.
    complement : sequence of int
        The channel of each input channel's partner.
    generator : torch.Generator
        Draws the strands.

    Attributes
    ----------
    lengths : ndarray of shape (n_series,)

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace.training import RandomStrands, SeriesBatches
    >>> data = SeriesBatches([np.eye(4)[[0, 1, 1]], np.eye(4)[[0, 0]]])
    >>> strands = RandomStrands(data, [3, 2, 1, 0], torch.Generator().manual_seed(0))
    >>> strands.batch(np.array([0, 1]))["x"].argmax(-1)
    tensor([[2, 2, 3],
            [0, 0, 0]])
    """

    def __init__(self, data: SeriesBatches, complement: Sequence[int], generator: torch.Generator):
        self.data, self.complement, self.generator = data, list(complement), generator
        self.lengths = data.lengths

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """The series at ``indices`` as in `SeriesBatches.batch`, each on one of its strands."""
        batch = self.data.batch(indices)
        x, dt = batch["x"], batch.get("dt")
        other = torch.rand(len(x), generator=self.generator) < 0.5
        other = other.to(x.device)[:, None]
        strand = reverse_complement(x, dt, self.complement)
        batch["x"] = torch.where(other[..., None], strand.x, x)
        if dt is not None and strand.dt is not None:
            batch["dt"] = torch.where(other, strand.dt, dt)
        y = batch.get("y")
        if y is not None and y.ndim == 3:
            batch["y"] = torch.where(other[..., None], along(y, strand.source), y)
        weight = batch.get("weight")
        if weight is not None and weight.ndim == 2:
            batch["weight"] = torch.where(other, along(weight[..., None], strand.source)[..., 0], weight)
        return batch
