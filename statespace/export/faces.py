"""Fitted models as torch modules from raw samples to answers: one sample at a time, or a whole record at once.

Scaling, the coding of missing values, the first gap, pooling and the answer's units are inside, so that whatever runs
the module needs none of this package's code.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from statespace.layers import SequenceMixer


class Face(nn.Module):
    """What both faces share: how samples come in and answers go out.

    Parameters
    ----------
    estimator : DeepEstimator
        Fitted.
    dtype : torch.dtype
        In which the network computes, and of inputs and outputs that are numbers. Scaling is in float64.
    """

    time_scale: Tensor
    rows: Tensor
    x_mean: Tensor
    x_scale: Tensor

    def __init__(self, estimator: Any, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.pooling = dtype, estimator.model_.pooling
        self.model = estimator._copy_model(torch.device("cpu"), dtype).requires_grad_(False)
        self.timed, self.masked = estimator.clock_ is not None, estimator.has_missing_
        self.register_buffer("time_scale", torch.tensor(float(estimator.time_scale_), dtype=torch.float64))
        self._answers = estimator._answers_module()
        alphabet = estimator._alphabet
        self.symbols = alphabet is not None
        if alphabet is not None:
            self.register_buffer("rows", torch.from_numpy(alphabet.rows).to(dtype))
        else:
            self.register_buffer("x_mean", torch.from_numpy(estimator.x_mean_))
            self.register_buffer("x_scale", torch.from_numpy(estimator.x_scale_))

    def encode(self, x: Tensor) -> Tensor:
        """Samples (..., n_channels), or codes (...), as the network reads them: (..., d_input)."""
        if self.symbols:
            return self.rows[x]
        scaled = (x.double() - self.x_mean) / self.x_scale
        missing = scaled.isnan()
        scaled = torch.where(missing, 0.0, scaled).to(self.dtype)
        return torch.cat([scaled, (~missing).to(self.dtype)], dim=-1) if self.masked else scaled

    def scaled_gaps(self, dt: Tensor, first: Tensor) -> Tensor:
        """Gaps in units of the median gap; 1 where a sample is the first."""
        return torch.where(first, 1.0, dt.double() / self.time_scale).to(self.dtype)

    def answers(self, outputs: Tensor) -> dict[str, Tensor]:
        """What the network's outputs say, by name."""
        return {name: value.to(self.dtype) for name, value in self._answers(outputs).items()}


class Step(Face):
    """One sample: ``(x, [dt,] *state) -> (*answers, *state)``, as `statespace.streaming.LayerStream` steps.

    The state begins with the number of samples read, (batch,), then with mean pooling the sum of their features,
    (batch, d_model); then come the layers' states. All of it is zero before the first sample. A gap of 0 is no sample.

    Parameters
    ----------
    estimator, dtype
        As in `Face`.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace import S4DRegressor
    >>> from statespace.export import Step
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X.sum(axis=1))
    >>> step = Step(reg, torch.float64)
    >>> state = step.initial_state(1)
    >>> for x in X[0]:
    ...     answer, *state = step(torch.tensor([[x]]), *state)
    >>> bool(np.allclose(answer, reg.predict(X[:1])))
    True
    """

    def __init__(self, estimator: Any, dtype: torch.dtype):
        super().__init__(estimator, dtype)
        self.model.freeze()
        self._like = self.model.initial_state(1)

    def forward(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """x (batch, n_channels), or codes (batch,); dt (batch,) if fitted with times; the state."""
        dt, (count, *state) = (rest[0], rest[1:]) if self.timed else (None, rest)
        gap, real = None, torch.ones_like(count, dtype=torch.bool)
        if dt is not None:
            gap, real = self.scaled_gaps(dt, count == 0), (dt > 0) | (count == 0)
        counted = count + real
        total = [state.pop(0)] if self.pooling == "mean" else []
        h, after = self.model.step_features(self.encode(x), _nested(self._like, iter(state)), gap)
        if self.pooling == "mean":
            total = [total[0] + torch.where(real[:, None], h, 0.0)]
            h = total[0] / counted[:, None].to(h.dtype)
        return (*self.answers(self.model.head(h)).values(), counted, *total, *flat(after))

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """The state before the first sample: zeros."""
        like = self.model.head.weight
        total = [like.new_zeros(batch_size, like.shape[1])] if self.pooling == "mean" else []
        start = flat(self.model.initial_state(batch_size))
        return [torch.zeros(batch_size, dtype=torch.int64), *total, *start]


class Record(Face):
    """Whole records: ``(x[, dt]) -> answers``, each of one length and without padding, as ``predict`` reads them.

    Parameters
    ----------
    estimator, dtype
        As in `Face`.
    folded : bool, default=False
        Read the record step by step, in a loop that a graph holds as such, and so for records of any length. Otherwise
        all at once, in torch's operations.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace import S4DRegressor
    >>> from statespace.export import Record
    >>> X = np.random.default_rng(0).normal(size=(20, 12, 1))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X.sum(axis=(1, 2)))
    >>> bool(np.allclose(Record(reg, torch.float64)(torch.tensor(X))[0][:, 0], reg.predict(X)))
    True
    """

    def __init__(self, estimator: Any, dtype: torch.dtype, *, folded: bool = False):
        super().__init__(estimator, dtype)
        self.folded = folded
        if folded:
            self.model.freeze()
            self._like = self.model.initial_state(1)
        for part in self.model.modules():
            if isinstance(part, SequenceMixer):
                part.backend = "pytorch"

    def forward(self, x: Tensor, dt: Tensor | None = None) -> tuple[Tensor, ...]:
        """x (batch, length, n_channels), or codes (batch, length); dt (batch, length), the gap before each sample."""
        gaps = None
        if dt is not None:
            gaps = self.scaled_gaps(dt, torch.arange(dt.shape[1], device=dt.device) == 0)
        encoded = self.encode(x)
        outputs = self._fold(encoded, gaps) if self.folded else self.model(encoded, gaps)[0]
        return tuple(self.answers(outputs).values())

    def _fold(self, x: Tensor, dt: Tensor | None) -> Tensor:
        # Exported and run by torch, but not yet under a public name.
        from torch._higher_order_ops.scan import scan

        def step(state, sample):
            h, after = self.model.step_features(sample[0], _nested(self._like, iter(state)), *sample[1:])
            # A loop hands on what it was handed: copies, side by side in memory.
            return [part.clone(memory_format=torch.contiguous_format) for part in flat(after)], h.clone()

        start = [part.new_zeros(x.shape[0], *part.shape[1:]) for part in flat(self._like)]
        samples = (x.transpose(0, 1),) if dt is None else (x.transpose(0, 1), dt.transpose(0, 1))
        h = scan(step, start, samples)[1].transpose(0, 1)
        if self.pooling is not None:
            h = self.model.pool(h)
        return self.model.head(h)


def flat(state: Any) -> list[Tensor]:
    """The tensors of a nested state, in order.

    Examples
    --------
    >>> import torch
    >>> from statespace.export.faces import flat
    >>> len(flat((torch.zeros(1), (torch.zeros(2), ()))))
    2
    """
    return [state] if isinstance(state, Tensor) else [part for each in state for part in flat(each)]


def _nested(like: Any, parts: Iterator[Tensor]) -> Any:
    """Tensors in the structure of another state."""
    return next(parts) if isinstance(like, Tensor) else tuple(_nested(each, parts) for each in like)
