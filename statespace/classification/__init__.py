"""Classifiers of series: one label a series, or one a step (sequence labelling).

Above: the user. Below: ``statespace.deep`` fits, streams and saves; ``statespace.parameters`` names the layers.

ssm        SSMClassifier: any layer by name, or a pattern of them; DeepClassifier, what all have in common
linear     S4Classifier, S4DClassifier, S5Classifier, H3Classifier
"""

from statespace.classification.linear import H3Classifier, S4Classifier, S4DClassifier, S5Classifier
from statespace.classification.ssm import DeepClassifier, SSMClassifier

__all__ = ["DeepClassifier", "H3Classifier", "S4Classifier", "S4DClassifier", "S5Classifier", "SSMClassifier"]
