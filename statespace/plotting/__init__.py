"""What estimators show of themselves, as Displays in scikit-learn's manner; needs matplotlib (extra ``plot``).

Above: nothing. Below: the estimators. matplotlib is imported when something is drawn.

forecast    ForecastDisplay: history, mean and interval bands
components  ComponentsDisplay: each component of a signal on an axis of its own
diagnostics DiagnosticsDisplay: standardised innovations in four panels
axes        what they share
"""

from statespace.plotting.components import ComponentsDisplay
from statespace.plotting.diagnostics import DiagnosticsDisplay
from statespace.plotting.forecast import ForecastDisplay

__all__ = ["ComponentsDisplay", "DiagnosticsDisplay", "ForecastDisplay"]
