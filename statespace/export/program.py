"""Fitted models as graphs of torch operations (``torch.export``), which run without Python and without this package."""

from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted

from statespace.export.faces import Face, Record, Step
from statespace.export.reals import InReals

_FACES: dict[str, type[Face]] = {"step": Step, "record": Record}
_TYPES = {"float32": torch.float32, "float64": torch.float64}


def export_program(estimator: Any, face: str = "record", *, dtype: str = "float64") -> torch.export.ExportedProgram:
    """A fitted deep estimator as a program of torch operations, from raw samples to answers.

    ``torch.export.save`` writes it to a file, ``program.module()`` runs it, and AOTInductor and ExecuTorch compile it.

    Parameters
    ----------
    estimator : DeepEstimator
        Fitted.
    face : {"record", "step"}, default="record"
        ``"record"``: x (batch, length, n_channels) and, if fitted with times, the gap before each sample dt (batch,
        length), whose first is not read; the answers are those of ``predict`` (of a classifier ``predict_proba``).
        ``"step"``: see `Step`; in real numbers only.
    dtype : {"float64", "float32"}, default="float64"
        As `predict` computes, or shorter.

    Returns
    -------
    program : torch.export.ExportedProgram
        With open sizes of the batch and, of a record, its length. Inputs and outputs are in the order of `Record` and
        `Step`; answers have shape (batch, n_outputs), or (batch, length, n_outputs).

    Raises
    ------
    ValueError
        An unknown face or type; one sample at a time of a model that reads whole records.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace import S4DRegressor
    >>> from statespace.export import export_program
    >>> X = np.random.default_rng(0).normal(size=(20, 12, 1))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X.sum(axis=(1, 2)))
    >>> program = export_program(reg)
    >>> (prediction,) = program.module()(torch.tensor(X[:7, :9]))
    >>> bool(np.allclose(prediction[:, 0], reg.predict(X[:7, :9])))
    True
    """
    check_is_fitted(estimator)
    if face not in _FACES:
        raise ValueError(f"face must be 'record' or 'step'. Got {face!r} instead.")
    model = made(estimator, face, dtype)
    if isinstance(model, Step):
        return stepping(model)
    shape = (3, 11) if model.symbols else (3, 11, estimator.n_channels_)
    inputs = [torch.zeros(shape, dtype=torch.int64 if model.symbols else model.dtype)]
    if model.timed:
        inputs.append(torch.ones(3, 11, dtype=model.dtype))
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    names = dict(zip(("x", "dt"), ({0: batch, 1: length} for _ in inputs), strict=False))
    with torch.no_grad():
        return torch.export.export(model, tuple(inputs), dynamic_shapes=names, strict=False)


def made(estimator: Any, face: str, dtype: str) -> Face:
    """The module of a face.

    Raises
    ------
    ValueError
        An unknown type; one sample at a time of a model that reads whole records.
    """
    if dtype not in _TYPES:
        raise ValueError(f"dtype must be 'float32' or 'float64'. Got {dtype!r} instead.")
    if face == "step":
        estimator._check_streamable()
    return _FACES[face](estimator, _TYPES[dtype]).eval()


def stepping(step: Step) -> torch.export.ExportedProgram:
    """The program of one sample, in real numbers, the number of streams open."""
    n = len(step.initial_state(1))
    x = torch.zeros(2, dtype=torch.int64) if step.symbols else torch.zeros(2, len(step.x_mean), dtype=step.dtype)
    inputs = [x, *([torch.ones(2, dtype=step.dtype)] if step.timed else []), *step.initial_state(2)]
    with torch.no_grad():
        # An axis that grows with the record is traced where it is neither 0 nor 1, which a graph would hold fixed.
        for _ in range(3):
            inputs[-n:] = step(*inputs)[-n:]
        batch, grown = torch.export.Dim("batch"), torch.export.Dim("n_kept")
        start = [*inputs[:-n], *step.initial_state(2)]
        shapes = tuple(
            {0: batch} | {i: grown for i in range(1, now.ndim) if now.shape[i] != first.shape[i]}
            for now, first in zip(inputs, start, strict=True)
        )
        program = torch.export.export(_Listed(step), tuple(inputs), dynamic_shapes=(shapes,), strict=False)
        graph = program.run_decompositions().module(check_guards=False)
        return torch.export.export(_InReals(graph), tuple(inputs), dynamic_shapes=(shapes,), strict=False)


class _Listed(torch.nn.Module):
    """A module whose inputs are one tuple."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        return self.module(*inputs)


class _InReals(torch.nn.Module):
    """A graph run in real arithmetic, which tracing then writes down."""

    def __init__(self, graph: torch.fx.GraphModule):
        super().__init__()
        self.traced = graph  # "graph" is taken: what is traced is in turn a GraphModule

    def forward(self, *inputs):
        return InReals(self.traced).run(*inputs)
