"""The training loop: ragged batches by index, rates of A, B and Δ of their own, early stopping, best weights kept.

Above: the estimators. Below: any ``torch.nn.Module`` and a loss of the form ``loss(model, batch) -> (sum, count)``.
"""

from statespace.training.batches import SeriesBatches, length_batches
from statespace.training.loop import DivergenceError, History, check_precision, choose_device, fit
from statespace.training.optimizer import parameter_groups, ssm_rates, warmup_cosine
from statespace.training.stored import StoredBatches
from statespace.training.strands import RandomStrands

__all__ = [
    "DivergenceError",
    "History",
    "RandomStrands",
    "SeriesBatches",
    "StoredBatches",
    "check_precision",
    "choose_device",
    "fit",
    "length_batches",
    "parameter_groups",
    "ssm_rates",
    "warmup_cosine",
]
