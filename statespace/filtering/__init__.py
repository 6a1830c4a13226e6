"""The classic side as estimators: the Kalman filter behind scikit-learn's interface.

Above: the forecasters. Below: `statespace.kalman`, the processes and how they meet data.

regressor   KalmanRegressor: a Gaussian process in time, in O(n)
"""

from statespace.filtering.regressor import KalmanRegressor

__all__ = ["KalmanRegressor"]
