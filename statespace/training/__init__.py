"""The training loop: ragged batches by index, rates of A, B and Δ of their own, early stopping, best weights kept.

``loop`` trains, ``devices`` says where, ``batches`` and ``strands`` cut series into batches, ``weights`` weighs their
targets, ``optimizer`` groups parameters, ``steps`` takes its steps. ``history`` is what happened, ``callbacks`` are
told of it, ``run`` is all that changes meanwhile, and ``checkpoints`` keep it; ``interruption`` and ``memory`` know
Ctrl-C and full memory.

Above: the estimators. Below: any ``torch.nn.Module`` and a loss of the form ``loss(model, batch) -> (sum, count)``.
"""

from statespace.training.batches import SeriesBatches, choose_batch_size, length_batches
from statespace.training.callbacks import Callback, HistoryFile, TimeLimit
from statespace.training.checkpoints import Checkpoint
from statespace.training.devices import Devices, OneDevice, check_precision, choose_device
from statespace.training.history import DivergenceError, History
from statespace.training.loop import fit, partial_fit
from statespace.training.optimizer import parameter_groups, ssm_rates, warmup_cosine
from statespace.training.processes import FabricDevices, count_devices, fit_in_processes
from statespace.training.stored import StoredBatches
from statespace.training.strands import RandomStrands
from statespace.training.weights import target_weights

__all__ = [
    "Callback",
    "Checkpoint",
    "Devices",
    "DivergenceError",
    "FabricDevices",
    "History",
    "HistoryFile",
    "OneDevice",
    "RandomStrands",
    "SeriesBatches",
    "StoredBatches",
    "TimeLimit",
    "check_precision",
    "choose_batch_size",
    "choose_device",
    "count_devices",
    "fit",
    "fit_in_processes",
    "length_batches",
    "parameter_groups",
    "partial_fit",
    "ssm_rates",
    "target_weights",
    "warmup_cosine",
]
