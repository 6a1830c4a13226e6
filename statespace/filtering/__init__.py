"""The classic side as estimators: the Kalman filter behind scikit-learn's interface.

Above: the forecasters. Below: `statespace.kalman`, the processes and how they meet data.

regressor   KalmanRegressor: a Gaussian process in time, in O(n), of one series or of many
prediction  what a fitted one is asked for: the signal, its components, draws, streams, a score
panel       X and y of one series or of many, in the forms in which they may come
posteriors  what was fitted, asked about any of its series
estimation  maximum likelihood of a process on a record
noise       the noise variance: fitted, one number, or one for each sample
diagnosis   innovations and their tests, information criteria, shocks, anomaly scores
summary     a fitted model on one page
files       a fitted regressor as plain data and arrays
"""

from statespace.filtering.regressor import KalmanRegressor

__all__ = ["KalmanRegressor"]
