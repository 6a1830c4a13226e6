"""Ragged series as padded batches, by index: series of like length go together, a padded step has Δ = 0 and u = 0."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

# Batches among which series are sorted by length: long enough to pad little, short enough to keep the order random.
_POOL = 16


def length_batches(
    lengths: np.ndarray, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[np.ndarray]:
    """Index batches of series of like length.

    Parameters
    ----------
    lengths : ndarray of shape (n_series,)
    batch_size : int
    generator : torch.Generator, optional
        Shuffles; without it the batches go from short to long.

    Yields
    ------
    indices : ndarray of shape (<= batch_size,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.training import length_batches
    >>> [batch.tolist() for batch in length_batches(np.array([5, 2, 5, 3]), 2)]
    [[1, 3], [0, 2]]
    """
    n = len(lengths)
    if generator is None:
        order = np.argsort(lengths, kind="stable")
        pools = [order]
    else:
        order = torch.randperm(n, generator=generator).numpy()
        size = _POOL * batch_size
        pools = [chunk[np.argsort(lengths[chunk], kind="stable")] for chunk in np.split(order, range(size, n, size))]
    batches = [pool[i : i + batch_size] for pool in pools for i in range(0, len(pool), batch_size)]
    if generator is not None:
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
    yield from batches


def choose_batch_size(batch_size: int | str, n_series: int) -> int:
    """How many series a step of the optimiser sees: ``batch_size``, or for ``"auto"`` an eighth of them, from 4 to 32.

    Few series then teach in as many steps as 256 do. In the study of defaults (``docs/defaults.md``) no other option
    mattered as much: fifty epochs in batches of 32 are fifty to a hundred steps for sets of 50 series.

    Parameters
    ----------
    batch_size : int or "auto"
    n_series : int

    Examples
    --------
    >>> from statespace.training import choose_batch_size
    >>> [choose_batch_size("auto", n) for n in (10, 100, 1000)], choose_batch_size(64, 100)
    ([4, 12, 32], 64)
    """
    return min(32, max(4, n_series // 8)) if isinstance(batch_size, str) else batch_size


class SeriesBatches:
    """Series in memory, cut into padded batches by index.

    Parameters
    ----------
    inputs : list of ndarray of shape (n_times_i, d_input)
        No missing values: they are already encoded. With ``rows``, codes of shape (n_times_i,).
    gaps : list of ndarray of shape (n_times_i,), optional
        Scaled gaps, the first of each series 1. None, or nothing but ones: a regular grid.
    targets : ndarray of shape (n_series, n_outputs) or list of ndarray of shape (n_times_i, n_outputs), optional
        One row a series, or one a step; NaN where unknown.
    weights : ndarray of shape (n_series,) or list of ndarray of shape (n_times_i,), optional
        How much a series, or each of its steps, counts in the loss.
    dtype : torch.dtype, default=torch.float32
    device : str or torch.device, default="cpu"
    rows : ndarray of shape (n_codes, d_input), optional
        What each code stands for: symbols stay codes in memory, and become rows batch by batch.

    Attributes
    ----------
    lengths : ndarray of shape (n_series,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.training import SeriesBatches
    >>> data = SeriesBatches([np.ones((2, 1)), np.ones((3, 1))], gaps=[np.array([1.0, 0.5]), np.ones(3)])
    >>> data.batch(np.array([0, 1]))["dt"]
    tensor([[1.0000, 0.5000, 0.0000],
            [1.0000, 1.0000, 1.0000]])
    """

    def __init__(
        self,
        inputs: Sequence[np.ndarray],
        gaps: Sequence[np.ndarray] | None = None,
        targets: np.ndarray | Sequence[np.ndarray] | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        rows: np.ndarray | None = None,
        weights: np.ndarray | Sequence[np.ndarray] | None = None,
    ):
        self.lengths = np.array([len(values) for values in inputs], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        regular = gaps is None or all(np.all(g == 1) for g in gaps)
        self._dtype = dtype
        self._rows = None if rows is None else self._join([rows], dtype, device)
        self._inputs = self._join(inputs, dtype if rows is None else torch.int32, device)
        self._gaps = None if regular else self._join(gaps, dtype, device)
        self._per_step = targets is not None and not isinstance(targets, np.ndarray)
        self._targets = None
        if targets is not None:
            self._targets = self._join(targets if self._per_step else [targets], dtype, device)
        self._weights = None
        self._weighs_steps = weights is not None and not isinstance(weights, np.ndarray)
        if weights is not None:
            self._weights = self._join(weights if self._weighs_steps else [weights], dtype, device)

    @staticmethod
    def _join(arrays, dtype, device) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(device=device, dtype=dtype)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, indices: np.ndarray, start: int = 0, stop: int | None = None) -> dict[str, Tensor]:
        """The series at ``indices``, steps ``start`` to ``stop``, padded at the end to the longest of them.

        Returns
        -------
        batch : dict of Tensor
            ``x`` (B, L, d_input), ``lengths`` (B,), ``mask`` (B, L); ``dt`` (B, L), left out for gaps of 1 without
            padding; with targets ``y``, (B, n_outputs) or (B, L, n_outputs) with NaN at padded steps; with weights
            ``weight``, (B,) or (B, L) with 0 at padded steps.
        """
        device = self._inputs.device
        ends = self.lengths[indices] if stop is None else np.minimum(self.lengths[indices], stop)
        lengths = torch.as_tensor(np.maximum(ends - start, 0), device=device)
        steps = torch.arange(int(lengths.max()), device=device)
        mask = steps < lengths[:, None]
        first = torch.as_tensor(self._starts[indices] + start, device=device)
        rows = (first[:, None] + steps).clamp_(max=len(self._inputs) - 1)
        x = self._inputs[rows] if self._rows is None else self._rows[self._inputs[rows]]
        batch = {"x": torch.where(mask[..., None], x, 0), "lengths": lengths, "mask": mask}
        if self._gaps is not None:
            batch["dt"] = torch.where(mask, self._gaps[rows], 0)
        elif not bool(mask.all()):
            batch["dt"] = mask.to(self._dtype)
        if self._targets is not None:
            if self._per_step:
                batch["y"] = torch.where(mask[..., None], self._targets[rows], torch.nan)
            else:
                batch["y"] = self._targets[torch.as_tensor(indices, device=device)]
        if self._weights is not None:
            if self._weighs_steps:
                batch["weight"] = torch.where(mask, self._weights[rows], 0)
            else:
                batch["weight"] = self._weights[torch.as_tensor(indices, device=device)]
        return batch
