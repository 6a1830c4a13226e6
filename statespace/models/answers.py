"""What a network's outputs say, in the units of the targets: the last piece of a model that is exported or tried."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class Targets(nn.Module):
    """Answers of a regressor from outputs (..., n_outputs · n_parameters).

    Parameters
    ----------
    mean, scale : ndarray of shape (n_outputs,)
        Of the targets.
    read : callable
        Takes outputs (..., n_outputs, n_parameters) to ``"prediction"`` and maybe ``"std"``, both (..., n_outputs), or
        ``"quantiles"`` (..., n_outputs, n_levels), in scaled units.
    std_scale : float or ndarray of shape (n_outputs,), default=1.0
        By which standard deviations are calibrated.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace.models.answers import Targets
    >>> answers = Targets(np.array([10.0]), np.array([2.0]), lambda outputs: {"prediction": outputs[..., 0]})
    >>> answers(torch.tensor([[1.0]], dtype=torch.float64))
    {'prediction': tensor([[12.]], dtype=torch.float64)}
    """

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        read: Callable[[Tensor], dict[str, Tensor]],
        std_scale: float | np.ndarray = 1.0,
    ):
        super().__init__()
        self.read = read
        self.mean: Tensor
        self.scale: Tensor
        self.std_scale: Tensor
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("std_scale", torch.from_numpy(np.asarray(scale * std_scale)))

    def forward(self, outputs: Tensor) -> dict[str, Tensor]:
        """Outputs (..., n_outputs · n_parameters) -> answers in float64."""
        answers = self.read(outputs.double().unflatten(-1, (len(self.mean), -1)))
        answers["prediction"] = answers["prediction"] * self.scale + self.mean
        if "std" in answers:
            answers["std"] = answers["std"] * self.std_scale
        if "quantiles" in answers:
            answers["quantiles"] = answers["quantiles"] * self.scale[:, None] + self.mean[:, None]
        return answers


class Probabilities(nn.Module):
    """Answers of a classifier from outputs (..., n_classes): softmax(outputs / temperature).

    Parameters
    ----------
    temperature : float

    Examples
    --------
    >>> import torch
    >>> from statespace.models.answers import Probabilities
    >>> Probabilities(1.0)(torch.zeros(2))
    {'probabilities': tensor([0.5000, 0.5000])}
    """

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: Tensor) -> dict[str, Tensor]:
        """Outputs (..., n_classes) -> probabilities of that shape."""
        return {"probabilities": (outputs / self.temperature).softmax(dim=-1)}
