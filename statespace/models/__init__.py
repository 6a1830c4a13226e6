"""What an estimator fits: a stack of layers between an encoder and a head.

Above: the estimators (``statespace.regression``, ``statespace.forecasting``) and the training loop.
Below: the layers (``statespace.layers``), one linear system each. A model knows tensors, gaps in units of the
training data's median gap, and states; nothing of series, times or scaling.
"""

from statespace.models.inference import predict_series, predict_steps
from statespace.models.registry import BACKBONES, make_backbone
from statespace.models.stack import ResidualBlock, ResidualStack

__all__ = ["BACKBONES", "ResidualBlock", "ResidualStack", "make_backbone", "predict_series", "predict_steps"]
