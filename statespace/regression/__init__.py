"""Regressors over collections of series: one target a series or one a step.

Above: the user. Below: ``statespace.deep`` fits, streams and saves; ``statespace.parameters`` names the layers.

ssm          SSMRegressor: any layer by name, or a pattern of them; DeepRegressor, what all have in common
linear       S4Regressor, S4DRegressor, S5Regressor, H3Regressor
selective    MambaRegressor, Mamba2Regressor, RWKVRegressor, DeltaNetRegressor
uncertainty  standard deviations, quantiles and intervals, calibrated on held-out series
"""

from statespace.regression.linear import H3Regressor, S4DRegressor, S4Regressor, S5Regressor
from statespace.regression.selective import DeltaNetRegressor, Mamba2Regressor, MambaRegressor, RWKVRegressor
from statespace.regression.ssm import DeepRegressor, SSMRegressor

__all__ = [
    "DeepRegressor",
    "DeltaNetRegressor",
    "H3Regressor",
    "Mamba2Regressor",
    "MambaRegressor",
    "RWKVRegressor",
    "S4DRegressor",
    "S4Regressor",
    "S5Regressor",
    "SSMRegressor",
]  # fmt: skip
