"""All that changes while a training goes on, as the tensors and the document of a checkpoint, and back.

Above: the loop. Below: ``checkpoints`` writes them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statespace.training.history import History

_GENERATORS = ("generator", "dropout")


class Best(NamedTuple):
    """The least loss so far, and the weights that had it."""

    score: float
    weights: dict[str, Tensor]


@dataclass
class Run:
    """A training that goes on.

    Parameters
    ----------
    model : nn.Module
    steps : Steps
        With the optimiser, and the generator that orders batches.
    data : Batches
        If batches draw from a generator of their own, it has ``state_dict`` and ``load_state_dict``, in JSON's types.
    history : History
    best : Best
    """

    model: nn.Module
    steps: Any
    data: Any
    history: History
    best: Best

    def packed(self, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The training as tensors and what JSON can hold.

        Parameters
        ----------
        identity : mapping
            As in `Checkpoint`.
        """
        state = self.steps.packed()
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.weights.items()}
        for number, moments in state.pop("optimizer").items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        tensors |= {name: state.pop(name) for name in _GENERATORS}
        document = {
            "identity": dict(identity),
            "history": asdict(self.history),
            "score": self.best.score,
            "steps": state,
        }
        if hasattr(self.data, "state_dict"):
            document["data"] = self.data.state_dict()
        return tensors, document

    def restore(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Go on from what `packed` returned."""
        self.model.load_state_dict(_below("model", tensors))
        device = self.steps.devices.device
        self.best = Best(document["score"], {n: value.to(device) for n, value in _below("best", tensors).items()})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below("optimizer", tensors).items():
            number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value
        self.steps.restore({"optimizer": moments} | {n: tensors[n] for n in _GENERATORS} | document["steps"])
        vars(self.history).update(document["history"])
        if self.history.stopped == "callback":
            self.history.stopped = "max_epochs"
        if "data" in document:
            self.data.load_state_dict(document["data"])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix += "."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's weights by name.

    Examples
    --------
    >>> import torch
    >>> from statespace.training.run import weights_of
    >>> sorted(weights_of(torch.nn.Linear(1, 1)))
    ['bias', 'weight']
    """
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def dropout_state(device: torch.device) -> Tensor:
    """The state of torch's own generator on a device, from which dropout draws.

    Examples
    --------
    >>> import torch
    >>> from statespace.training.run import dropout_state, set_dropout_state
    >>> device = torch.device("cpu")
    >>> state = dropout_state(device)
    >>> first = torch.rand(1)
    >>> set_dropout_state(device, state)
    >>> bool(torch.rand(1) == first)
    True
    """
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_dropout_state(device: torch.device, state: Tensor) -> None:
    """Put back what `dropout_state` returned."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
