"""The steps of an optimiser: gradients of batches that fit into memory, clipped, at rates that follow a schedule.

Above: the loop. Below: ``devices`` computes gradients, ``batches`` cuts the data, ``memory`` knows when it is full.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from statespace.models.experts import auxiliary_loss
from statespace.training.batches import length_batches
from statespace.training.memory import is_out_of_memory, release
from statespace.training.records import Carried, spans
from statespace.training.run import dropout_state, set_dropout_state


class Batches(Protocol):
    """What the loop reads: series that are cut into batches by index."""

    lengths: np.ndarray

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]: ...


Loss = Callable[[Any, dict[str, Tensor]], tuple[Tensor, Tensor]]


class NonFinite(Exception):
    """Carries the value that is not finite to where the epoch and the rates are known."""


class Steps:
    """The steps of an optimiser: gradients of batches, clipped, at rates that follow a schedule.

    Parameters
    ----------
    model : nn.Module
        As the devices run it.
    loss : callable
    optimizer : torch.optim.Optimizer
        Its groups' rates are the largest that the schedule reaches.
    devices : Devices
    generator : torch.Generator
        Order of the batches.
    factor : callable
        Number of the step -> factor of the rates.
    gradient_clip : float or None
    chunk_length : int, optional
        Steps of time of a batch that are computed at once; see ``records``.

    Attributes
    ----------
    n_taken : int
        Steps so far.
    n_parts : int
        Parts into which each batch is cut: 1, or 2 since one did not fit into memory.
    """

    def __init__(
        self, model, loss, optimizer, devices, generator, *, factor, gradient_clip, callbacks=(), chunk_length=None
    ):
        self.model, self.loss, self.optimizer, self.devices = model, loss, optimizer, devices
        self.generator, self.factor, self.gradient_clip = generator, factor, gradient_clip
        self.callbacks, self.chunk_length = callbacks, chunk_length
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.n_taken, self.n_parts = 0, 1
        self._carried: list[Any] = []

    def packed(self) -> dict[str, Any]:
        """What a later pass goes on from: the optimiser's moments, the generators, and counts."""
        return {
            "optimizer": deepcopy(self.optimizer.state_dict()["state"]),
            "generator": self.generator.get_state(),
            "dropout": dropout_state(self.devices.device),
            "n_taken": self.n_taken,
            "n_parts": self.n_parts,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `packed` returned."""
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.generator.set_state(state["generator"])
        set_dropout_state(self.devices.device, state["dropout"])
        self.n_taken, self.n_parts = state["n_taken"], state["n_parts"]

    def epoch(self, data: Batches, batch_size: int) -> float:
        """One pass over the data; the mean loss."""
        self.model.train()
        total, count = 0.0, 0.0
        for indices in length_batches(data.lengths, batch_size, self.generator):
            for span in spans(int(data.lengths[indices].max()), self.chunk_length):
                value, n = self.step(data, indices, span)
                total, count = total + value * n, count + n
        if count == 0:
            raise ValueError("no series has a target that is not missing: there is nothing to learn from.")
        return total / count

    def step(self, data: Batches, indices: np.ndarray, span=(0, None)) -> tuple[float, float]:
        """One step on a batch, or on a span of its time; its mean loss and count. A batch that counts 0 is none."""
        value, n = self._gradient_that_fits(data, indices, span)
        if n == 0:
            return 0.0, 0.0
        clip = math.inf if self.gradient_clip is None else self.gradient_clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        value, norm = torch.stack([value, norm.to(value)]).tolist()
        if not math.isfinite(value):
            raise NonFinite(value)
        if not math.isfinite(norm):
            raise NonFinite(f"{value:.4g} with a gradient of {norm}")
        factor = self.factor(self.n_taken)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        for callback in self.callbacks:
            callback.on_step_end(self.n_taken, value, self.model)
        self.n_taken += 1
        return value, n

    def _gradient_that_fits(self, data, indices, span):
        """The gradient of a batch, which is halved if it is the first that does not fit into memory."""
        before = self.generator.get_state(), dropout_state(self.devices.device)
        try:
            return self._gradient(data, indices, span)
        except (RuntimeError, MemoryError) as error:
            # What another process computes meanwhile cannot be called back.
            if not is_out_of_memory(error) or self.devices.size > 1:
                raise
            # Nor can the states of a batch be halved that has begun as a whole.
            if self.n_parts > 1 or len(indices) == 1 or span[0] > 0:
                longest = int(data.lengths[indices].max())
                longest = longest if span[1] is None else min(longest, span[1] - span[0])
                halved = " even in two halves" if self.n_parts > 1 and len(indices) > 1 else ""
                raise MemoryError(
                    f"a batch of {len(indices)} series of up to {longest} steps does not fit into the memory of "
                    f"{self.devices.device}{halved}. Lower batch_size, d_model or n_layers, or give a chunk_length."
                ) from None
        # Here the error is forgotten, and with it what the failed step held.
        self.n_parts = 2
        self.optimizer.zero_grad(set_to_none=True)
        release(self.devices.device)
        warnings.warn(
            f"a batch of {len(indices)} series did not fit into the memory of {self.devices.device}: from here on each "
            "batch is computed in two halves, whose gradients are added. A lower batch_size needs no halves.",
            UserWarning,
            stacklevel=4,
        )
        self.generator.set_state(before[0])
        set_dropout_state(self.devices.device, before[1])
        return self._gradient_that_fits(data, indices, span)

    def _gradient(self, data, indices, span):
        """Leave the gradient of the batch's mean loss in the parameters; that loss, and its count."""
        devices = self.devices
        self.optimizer.zero_grad(set_to_none=True)
        unit = 0.0
        sums = torch.zeros(2)
        parts = np.array_split(devices.share(indices), min(self.n_parts, len(indices)))
        if span[0] == 0:
            self._carried = [self.model if span[1] is None else Carried(self.model) for _ in parts]
        for part, model in zip(parts, self._carried, strict=True):
            batch_sum, batch_count = self._loss_of(model, data, part, indices, span)
            counts = torch.stack([batch_sum.detach(), batch_count.to(batch_sum)])
            # All parts, and all processes, divide by one number, at first that of the targets in the first part.
            unit = unit or float(devices.total(counts)[1]) / devices.size
            devices.backward((batch_sum + batch_count * auxiliary_loss(self.model)) / (unit or 1.0))
            sums = counts + sums.to(counts)
        sums = devices.total(sums)
        n = float(sums[1])
        if n and (scale := unit * devices.size / n) != 1:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        return sums[0] / (n or 1.0), n


    def _loss_of(self, model, data, part, indices, span):
        """Sum and count of a part's losses; a part without steps there counts nothing, and has a gradient of 0.

        Every process has to compute a gradient, also the one whose series are all at their ends.
        """
        if len(part) and data.lengths[part].max() > span[0]:
            return self.loss(model, to_device(cut(data, part, span), self.devices.device))
        longest = indices[[np.argmax(data.lengths[indices])]]
        batch_sum, batch_count = self.loss(self.model, to_device(cut(data, longest, span), self.devices.device))
        return 0 * batch_sum, 0 * batch_count


def cut(data: Batches, indices: np.ndarray, span: tuple[int, int | None]) -> dict[str, Tensor]:
    """The batch of some series, or a span of its time."""
    return data.batch(indices) if span == (0, None) else cast(Any, data).batch(indices, *span)


def to_device(batch: dict[str, Tensor], device) -> dict[str, Tensor]:
    """The batch on a device."""
    return {name: value.to(device) for name, value in batch.items()}
