"""Stored series as padded batches, read when a batch is asked for: the counterpart of ``SeriesBatches``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from statespace.readers import StoredRows
from statespace.stored import StoredSeries
from statespace.times import scale_gaps


class StoredBatches:
    """Series on disk, cut into padded batches by index; only the steps of a batch are read.

    Parameters
    ----------
    series : StoredSeries
    encode : callable
        From values (n, n_channels) to inputs (n, d_input) without missing values.
    time_scale : float, default=1.0
        Gaps are divided by it; the first of each series is 1.
    targets : ndarray of shape (n_series, n_outputs), StoredRows or list of ndarray of shape (n_times_i, n_outputs), \
optional
        One row a series, or one a step; NaN where unknown.
    dtype : torch.dtype, default=torch.float32
    device : str or torch.device, default="cpu"
    weights : ndarray of shape (n_series,) or list of ndarray of shape (n_times_i,), optional
        How much a series, or each of its steps, counts in the loss.

    Attributes
    ----------
    lengths : ndarray of shape (n_series,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.stored import StoredSeries
    >>> from statespace.training import StoredBatches
    >>> data = StoredBatches(StoredSeries(np.arange(6.0).reshape(2, 3)), encode=lambda values: values / 2)
    >>> data.batch(np.array([1]), start=1)["x"]
    tensor([[[2.0000],
             [2.5000]]])
    """

    def __init__(
        self,
        series: StoredSeries,
        encode: Callable[[np.ndarray], np.ndarray],
        time_scale: float = 1.0,
        targets: np.ndarray | Sequence[np.ndarray] | StoredRows | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        weights: np.ndarray | Sequence[np.ndarray] | None = None,
    ):
        self.lengths = series.lengths
        self._series, self._encode, self._time_scale = series, encode, time_scale
        self._targets: Any = targets
        self._dtype, self._device = dtype, device
        self._weights: Any = weights
        self._per_step = targets is not None and not isinstance(targets, np.ndarray)

    def __len__(self) -> int:
        return len(self._series)

    def batch(self, indices: np.ndarray, start: int = 0, stop: int | None = None) -> dict[str, Tensor]:
        """The series at ``indices``, steps ``start`` to ``stop``, in the form of `SeriesBatches.batch`."""
        indices = np.asarray(indices)
        ends = self.lengths[indices] if stop is None else np.minimum(self.lengths[indices], stop)
        counts = np.maximum(ends - start, 0)
        size = int(counts.max())
        mask = np.arange(size) < counts[:, np.newaxis]
        x = y = None
        dt = mask.astype(np.float64)
        for row, (i, n) in enumerate(zip(indices, counts, strict=True)):
            if n == 0:
                continue
            values = self._encode(self._series.values.read(i, start, start + int(n)))
            if x is None:
                x = np.zeros((len(indices), size, values.shape[1]))
            x[row, :n] = values
            gaps = self._series.gaps(i, start, start + int(n), first=self._time_scale)
            if gaps is not None:
                dt[row, :n] = scale_gaps(gaps, self._time_scale)
            if self._per_step:
                targets = self._target(i, start, start + int(n))
                if y is None:
                    y = np.full((len(indices), size, targets.shape[1]), np.nan)
                y[row, :n] = targets
        if x is None or (self._per_step and y is None):
            raise ValueError(f"no series of the batch has a step from {start} on.")
        batch = {"x": self._tensor(x), "lengths": torch.from_numpy(counts).to(self._device)}
        batch["mask"] = torch.from_numpy(mask).to(self._device)
        # As in memory: without times, or on a regular grid without padding, there are no gaps.
        if not (dt == 1).all():
            batch["dt"] = self._tensor(dt)
        if y is not None:
            batch["y"] = self._tensor(y)
        elif self._targets is not None:
            batch["y"] = self._tensor(self._targets[indices])
        if isinstance(self._weights, np.ndarray):
            batch["weight"] = self._tensor(self._weights[indices])
        elif self._weights is not None:
            weight = np.zeros(mask.shape)
            for row, (i, n) in enumerate(zip(indices, counts, strict=True)):
                weight[row, :n] = self._weights[i][start : start + n]
            batch["weight"] = self._tensor(weight)
        return batch

    def _target(self, i: int, start: int, stop: int) -> np.ndarray:
        if isinstance(self._targets, StoredRows):
            return self._targets.read(i, start, stop)
        return self._targets[i][start:stop]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device=self._device, dtype=self._dtype)
