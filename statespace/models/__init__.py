"""What an estimator fits: a stack of layers between an encoder and a head.

Above: the estimators (``statespace.regression``, ``statespace.forecasting``) and the training loop.
Below: the layers (``statespace.layers``), one linear system each. A model knows tensors, gaps in units of the
training data's median gap, and states; nothing of series, times or scaling.

stack      ResidualStack: blocks one after the other
experts    mixtures of experts behind the mixers, and what they add to the loss
sashimi    SaShiMi: blocks on several time scales
strands    both strands of DNA with the same weights
windows    the pooling between two of them
inference  outputs over many series in bounded memory
registry   the networks by name
answers    what outputs say, in the units of the targets
"""

from statespace.models.experts import MixtureOfExperts, auxiliary_loss
from statespace.models.inference import predict_series, predict_steps
from statespace.models.registry import BACKBONES, make_backbone, restored_model
from statespace.models.sashimi import SaShiMi
from statespace.models.stack import ResidualBlock, ResidualStack
from statespace.models.strands import ReverseComplement, reverse_complement

__all__ = [
    "BACKBONES", "MixtureOfExperts", "ResidualBlock", "ResidualStack", "ReverseComplement", "SaShiMi",
    "auxiliary_loss", "make_backbone", "predict_series", "predict_steps", "restored_model",
    "reverse_complement",
]  # fmt: skip
