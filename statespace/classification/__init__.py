"""Classifiers of series: one label a series, or one a step (sequence labelling).

Above: the user. Below: ``statespace.deep`` fits, streams and saves; ``statespace.parameters`` names the layers.

ssm          SSMClassifier: any layer by name, or a pattern of them; DeepClassifier, what all have in common
linear       S4Classifier, S4DClassifier, S5Classifier, H3Classifier
selective    MambaClassifier, Mamba2Classifier, RWKVClassifier, DeltaNetClassifier
sets         UncertainClassifier: sets of labels that hold the true one, by split conformal prediction
temperature  probabilities calibrated on held-out series
"""

from statespace.classification.linear import H3Classifier, S4Classifier, S4DClassifier, S5Classifier
from statespace.classification.selective import DeltaNetClassifier, Mamba2Classifier, MambaClassifier, RWKVClassifier
from statespace.classification.ssm import DeepClassifier, SSMClassifier

__all__ = [
    "DeepClassifier", "DeltaNetClassifier", "H3Classifier", "Mamba2Classifier", "MambaClassifier", "RWKVClassifier",
    "S4Classifier", "S4DClassifier", "S5Classifier", "SSMClassifier",
]  # fmt: skip
