"""How much each target counts: nothing where it is not known, and elsewhere the weight of its series or step."""

from collections.abc import Mapping

import torch
from torch import Tensor


def target_weights(batch: Mapping[str, Tensor]) -> Tensor:
    """The weight of every target of a batch: the sample weight where the target is known, 0 where it is NaN.

    A loss is the sum of weight times loss over its targets, and its count the sum of the weights, so that a series of
    weight 2 counts as two.

    Parameters
    ----------
    batch : mapping from str to Tensor
        ``y`` of shape (B, n_outputs) or (B, L, n_outputs); optionally ``weight``, (B,), or (B, L) for one a step.

    Returns
    -------
    weights : Tensor
        Of the shape of ``y``.

    Examples
    --------
    >>> import torch
    >>> from statespace.training import target_weights
    >>> y = torch.tensor([[1.0, 2.0], [torch.nan, 4.0]])
    >>> target_weights({"y": y, "weight": torch.tensor([0.5, 3.0])})
    tensor([[0.5000, 0.5000],
            [0.0000, 3.0000]])
    """
    y, weight = batch["y"], batch.get("weight")
    known = ~y.isnan()
    if weight is None:
        return known.to(y.dtype)
    weight = weight.to(y.dtype)
    return torch.where(known, weight.reshape(*weight.shape, *(1,) * (y.ndim - weight.ndim)), 0)
