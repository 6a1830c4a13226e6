"""Fitted deep models as graphs that run without this package: ONNX, and programs of ``torch.export``.

Above: the estimators' ``export_onnx``. Below: the models' two faces.

onnx        export_onnx: the step, state in and state out
program     export_program: either face as a program of torch operations
faces       Step and Record: from raw samples to answers, as torch modules
reals       a traced graph in real arithmetic, which ONNX asks for
"""

from statespace.export.faces import Record, Step
from statespace.export.onnx import export_onnx
from statespace.export.program import export_program

__all__ = ["Record", "Step", "export_onnx", "export_program"]
