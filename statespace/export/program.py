"""Fitted models as graphs of torch operations (``torch.export``), which run without Python and without this package."""

from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted

from statespace.export.faces import Face, Record, Step, flat
from statespace.export.reals import InReals

_TYPES = {"float32": torch.float32, "float64": torch.float64}


def export_program(
    estimator: Any, face: str = "record", *, dtype: str = "float64", shape: tuple[int, int] | None = None
) -> torch.export.ExportedProgram:
    """A fitted deep estimator as a program of torch operations, from raw samples to answers.

    ``torch.export.save`` writes it to a file, ``program.module()`` runs it, and AOTInductor and ExecuTorch compile it.

    Parameters
    ----------
    estimator : DeepEstimator
        Fitted.
    face : {"record", "step"}, default="record"
        ``"record"``: x (batch, length, n_channels) and, if fitted with times, the gap before each sample dt (batch,
        length), whose first is not read; the answers are those of ``predict`` (of a classifier ``predict_proba``).
        ``"step"``: one sample and the state, see `Step`; in real numbers only.
    dtype : {"float64", "float32"}, default="float64"
        As `predict` computes, or shorter.
    shape : (int, int), optional
        Of a record, batch and length: the program then reads records of this shape at once. None: records of any shape,
        step by step.

    Returns
    -------
    program : torch.export.ExportedProgram
        Inputs and outputs are in the order of `Record` and `Step`; answers have shape (batch, n_outputs), or (batch,
        length, n_outputs), quantiles one axis more.

    Raises
    ------
    ValueError
        An unknown face or type; one sample at a time, or records of any shape, of a model that reads whole records; of
        any shape where the state grows with the record, as that of attention without a window.

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
    if face not in ("record", "step"):
        raise ValueError(f"face must be 'record' or 'step'. Got {face!r} instead.")
    if face == "step":
        return stepping(made_step(estimator, dtype))
    folded = shape is None
    if folded and not _has_constant_state(estimator.model_):
        raise ValueError(
            "This model has no state of constant size, so that its program needs to know the shape of the records: "
            "give shape=(batch, length)."
        )
    record = Record(estimator, _type(dtype), folded=folded).eval()
    size = shape or (3, 11)
    inputs = [_blank(record, size), *([torch.ones(size, dtype=record.dtype)] if record.timed else [])]
    open_sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")} if folded else {}
    names = {name: dict(open_sizes) for name, _ in zip(("x", "dt"), inputs, strict=False)}
    with torch.no_grad():
        return torch.export.export(record, tuple(inputs), dynamic_shapes=names, strict=folded)


def _has_constant_state(model: Any) -> bool:
    """Whether the model is causal, and no axis of its state is empty at the start, to grow with the record."""
    return bool(model.causal) and all(part.numel() for part in flat(model.initial_state(1)))


def _type(name: str) -> torch.dtype:
    if name not in _TYPES:
        raise ValueError(f"dtype must be 'float32' or 'float64'. Got {name!r} instead.")
    return _TYPES[name]


def made_step(estimator: Any, dtype: str) -> Step:
    """The module of a step.

    Raises
    ------
    ValueError
        An unknown type; a model that reads whole records.
    """
    estimator._check_streamable()
    return Step(estimator, _type(dtype)).eval()


def stepping(step: Step) -> torch.export.ExportedProgram:
    """The program of one sample, in real numbers, the number of streams open."""
    n = len(step.initial_state(1))
    inputs = [_blank(step, (2,)), *([torch.ones(2, dtype=step.dtype)] if step.timed else []), *step.initial_state(2)]
    with torch.no_grad():
        # An axis that grows with the record is traced where it is neither 0 nor 1, which a graph would hold fixed.
        for _ in range(3):
            inputs[-n:] = step(*inputs)[-n:]
        batch, grown = torch.export.Dim("batch"), torch.export.Dim.AUTO
        start = [*inputs[:-n], *step.initial_state(2)]
        shapes = tuple(
            {0: batch} | {i: grown for i in range(1, now.ndim) if now.shape[i] != first.shape[i]}
            for now, first in zip(inputs, start, strict=True)
        )
        program = torch.export.export(_Listed(step), tuple(inputs), dynamic_shapes=(shapes,), strict=False)
        graph = program.run_decompositions().module(check_guards=False)
        return torch.export.export(_InReals(graph), tuple(inputs), dynamic_shapes=(shapes,), strict=False)


def _blank(face: Face, shape: tuple[int, ...]) -> torch.Tensor:
    """Samples of a shape: codes, or channels of zeros."""
    if face.symbols:
        return torch.zeros(shape, dtype=torch.int64)
    return torch.zeros(*shape, len(face.x_mean), dtype=face.dtype)  # type: ignore[arg-type]


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
