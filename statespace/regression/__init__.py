"""Regressors over collections of series: one target a series or one a step.

Above: the user. Below: ``statespace.deep`` fits, streams and saves; ``statespace.parameters`` names the layers.

ssm        SSMRegressor: any layer by name, or a pattern of them; DeepRegressor, what all have in common
linear     S4Regressor, S4DRegressor, S5Regressor, H3Regressor
"""

from statespace.regression.linear import H3Regressor, S4DRegressor, S4Regressor, S5Regressor
from statespace.regression.ssm import DeepRegressor, SSMRegressor

__all__ = ["DeepRegressor", "H3Regressor", "S4DRegressor", "S4Regressor", "S5Regressor", "SSMRegressor"]
