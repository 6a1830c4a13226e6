"""What estimators show of themselves, as Displays in scikit-learn's manner; needs matplotlib (extra ``plot``).

Above: nothing. Below: the estimators.
"""

__all__: list[str] = []
