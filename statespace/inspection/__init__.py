"""Looking inside: what a network is made of, the systems in its layers, what they choose, and what an answer rests on.

Above: ``deep`` and ``forecasting``, whose estimators summarise themselves, and ``plotting``, which draws what is
computed here. Below: ``models`` and ``layers``; an estimator is given, and is asked for what it has learned.

summary      summary: parameters, state and operations a step of every part
flops        counts the operations of a computation in torch
systems      linear_system, layer_kernel: the LTI system in a layer, with its poles and responses
selection    selection: steps, gates and what is kept, as a record makes a selective layer choose them
attribution  integrated_gradients: which samples an answer rests on
parts        where in an estimator these are found
"""

from statespace.inspection.attribution import Attribution, integrated_gradients
from statespace.inspection.flops import count_flops
from statespace.inspection.selection import selection
from statespace.inspection.summary import summary
from statespace.inspection.systems import layer_kernel, linear_system

__all__ = [
    "Attribution", "count_flops", "integrated_gradients", "layer_kernel", "linear_system", "selection", "summary",
]  # fmt: skip
