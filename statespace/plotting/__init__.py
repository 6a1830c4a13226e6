"""What estimators show of themselves, as Displays in scikit-learn's manner; needs matplotlib (extra ``plot``).

Above: nothing. Below: the estimators, and ``inspection``, which computes what is drawn. matplotlib is imported when
something is drawn, torch when a Display asks a network.

forecast    ForecastDisplay: history, mean and interval bands
components  ComponentsDisplay: each component of a signal on an axis of its own
diagnostics DiagnosticsDisplay: standardised innovations in four panels
training    TrainingDisplay: the losses of every epoch
responses   ImpulseResponseDisplay, PolesDisplay: what a linear layer remembers, and for how long
selection   SelectionDisplay: steps and gates of a selective layer over time
attribution AttributionDisplay: what each sample adds to an answer
axes        what they share
"""

from statespace.plotting.attribution import AttributionDisplay
from statespace.plotting.components import ComponentsDisplay
from statespace.plotting.diagnostics import DiagnosticsDisplay
from statespace.plotting.forecast import ForecastDisplay
from statespace.plotting.responses import ImpulseResponseDisplay, PolesDisplay
from statespace.plotting.selection import SelectionDisplay
from statespace.plotting.training import TrainingDisplay

__all__ = [
    "AttributionDisplay", "ComponentsDisplay", "DiagnosticsDisplay", "ForecastDisplay", "ImpulseResponseDisplay",
    "PolesDisplay", "SelectionDisplay", "TrainingDisplay",
]  # fmt: skip
