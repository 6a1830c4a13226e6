"""Linear time-invariant systems: the control engineer's door, on regular and irregular times.

Above: the deep layers, which are such systems with learned weights. Below: `statespace.kernels`.

filters          LTIFilter: analog filters on irregular samples
forms            values back into the form in which X came
prototypes       Butterworth, Chebyshev, elliptic, Bessel, notch and peak
analog           a filter of one channel: causal, zero phase, missing samples
stream           a filter one sample at a time
systems          LinearSystem, and discretize
simulation       simulate, step, kernel
composition      series, parallel, feedback, parts
analysis         poles, zeros, responses, gramians, smaller systems
conversion       transfer functions, scipy.signal, python-control
discretization   exact transitions, input integrals and process noise over gaps
reduction        the algorithms behind analysis, on matrices
realization      matrices from polynomials, zeros and poles
modes            eigenvectors, where they are well-conditioned
sweeps           compiled loops over a record
identification   LTIRegressor: a system from its input and output
identified       what can be done with it then
records          the forms in which it takes them
subspace         order, A and C on a regular grid
growth           systems mode by mode, where there is no such grid
initialization   the starts of the search
search           Gauss-Newton and BFGS steps
prediction_error the criteria, with their gradients
parametrization  the parameters, without changes of the basis
prediction       states, predictions k samples ahead, streams
recursions       compiled loops over records that also give derivatives
markov           systems from impulse responses: era
hippo            systems whose state is an approximation of their input's past
memory           HiPPOMemory: such a state, online or as features of whole records
recorder         its online half
history          what a memory holds of one record
projections      exact updates of its coefficients over any gaps
moments          compiled sums of Legendre polynomials, and the loop over gaps
"""

from importlib import import_module
from typing import TYPE_CHECKING

from statespace.lti import hippo
from statespace.lti.analysis import Bode, Response
from statespace.lti.discretization import Steps, input_weights, process_noise, transition
from statespace.lti.markov import era, observer_markov_parameters
from statespace.lti.simulation import Simulation, State
from statespace.lti.systems import LinearSystem

# Estimators, and with them scikit-learn and Numba, on demand: layers and components need the systems alone.
_HOME = {
    "FilterStream": "stream",
    "HiPPOMemory": "memory",
    "LTIFilter": "filters",
    "LTIRegressor": "identification",
    "LTIStream": "prediction",
}

__all__ = [
    "Bode", "FilterStream", "HiPPOMemory", "LTIFilter", "LTIRegressor", "LTIStream", "LinearSystem", "Response",
    "Simulation", "State", "Steps", "era", "hippo", "input_weights", "observer_markov_parameters", "process_noise",
    "transition",
]  # fmt: skip

if TYPE_CHECKING:
    from statespace.lti.filters import LTIFilter
    from statespace.lti.identification import LTIRegressor
    from statespace.lti.memory import HiPPOMemory
    from statespace.lti.prediction import LTIStream
    from statespace.lti.stream import FilterStream


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"statespace.lti.{_HOME[name]}"), name)
    raise AttributeError(f"module 'statespace.lti' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
