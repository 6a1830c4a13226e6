"""The step of a fitted model as an ONNX file: one sample and the state in, the answer and the state out."""

import json
import os
import re
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from statespace import persistence
from statespace.export.faces import Step
from statespace.export.program import made_step, stepping


def export_onnx(estimator: Any, path: str | os.PathLike, *, dtype: str = "float32") -> None:
    """Write the step of a fitted deep estimator as an ONNX graph, which runs wherever an ONNX runtime does.

    The graph takes a raw sample, NaN where missing, and the raw gap before it; scaling and units are inside. With b
    streams side by side, any number of them:

    ===================  ===========================  =============================================================
    input                shape                        is
    ===================  ===========================  =============================================================
    ``x``                (b, n_channels)              the samples; with an alphabet (b,), int64, positions of symbols
    ``dt``               (b,)                         time since the sample before, in the units of ``fit`` (days of
                                                      datetimes), not read for the first sample; 0 is no sample. Only
                                                      there if the model was fitted with times
    ``state_0``, ...     as the metadata say          zeros before the first sample, then the outputs ``next_state_0``
    ===================  ===========================  =============================================================

    The outputs are ``prediction`` (b, n_outputs) of a regressor, beside it ``std`` (b, n_outputs) with
    ``distribution="gaussian"`` or ``"student_t"``, and ``quantiles`` (b, n_outputs, n_levels), at the levels
    ``statespace.quantiles.LEVELS``, with ``"quantile"``; or ``probabilities`` (b, n_classes) of a classifier, what
    `stream` answers; and the next states.

    Parameters
    ----------
    estimator : DeepEstimator
        Fitted, neither bidirectional nor reading both strands.
    path : str or os.PathLike
        The file, replaced as a whole if it exists.
    dtype : {"float32", "float64"}, default="float32"
        Of the network, samples, gaps and answers. Scaling is in float64 in either, and so are the steps of those layers
        whose nodes would lose digits.

    Raises
    ------
    ImportError
        The packages onnx and onnxscript are not there.
    ValueError
        The model reads whole records, or an unknown type.
    sklearn.exceptions.NotFittedError

    Notes
    -----
    The file's metadata hold, under ``statespace``, a JSON object with the class, the names and shapes of the state, the
    names of the channels, the classes, the symbols of the alphabet and the kind of times. ONNX has no complex numbers,
    and its runtimes lack functions in double precision: the graph is in reals and elementary functions, which
    `statespace.export.reals` writes so that none of the digits are lost. A state that grows with the record, that of
    attention without a window, has an open axis, which is empty before the first sample; all streams then take every
    sample.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from onnxruntime import InferenceSession
    >>> from statespace import S4DRegressor
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, np.cumsum(X, axis=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     reg.export_onnx(os.path.join(folder, "step.onnx"))
    ...     session = InferenceSession(os.path.join(folder, "step.onnx"))
    >>> [i.name for i in session.get_inputs()]
    ['x', 'state_0', 'state_1']
    >>> state = {"state_0": np.zeros(1, np.int64), "state_1": np.zeros((1, 4, 2, 2), np.float32)}
    >>> for x in X[0]:
    ...     answer, *after = session.run(None, {"x": [[np.float32(x)]], **state})
    ...     state = dict(zip(state, after))
    >>> bool(np.allclose(answer[0], reg.predict(X[:1])[0, -1], atol=1e-4))
    True
    """
    check_is_fitted(estimator)
    step = made_step(estimator, dtype)
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"export_onnx needs the packages onnx and onnxscript ({error}): pip install 'statespace-learn[export]'"
        ) from None
    with torch.no_grad():
        answers = list(step.answers(step.model.head.weight.new_zeros(1, step.model.head.out_features)))
    states = [f"state_{k}" for k in range(len(step.initial_state(1)))]
    # Its optimiser takes a term of 1e-9 for one of 0; runtimes simplify graphs themselves.
    with warnings.catch_warnings():
        # Of torch's exporter, about itself.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        program: Any = torch.onnx.export(
            stepping(step), dynamo=True, optimize=False, verbose=False,
            input_names=["x", *(["dt"] if step.timed else []), *states],
            output_names=[*answers, *(f"next_{name}" for name in states)],
        )  # fmt: skip
    program.model.metadata_props["statespace"] = json.dumps(description(estimator, step, states))
    model = program.model_proto
    _name_sizes(model.graph)
    persistence.replace(path, model.SerializeToString())


def _name_sizes(graph: Any) -> None:
    """Call the open sizes of a graph what they are, rather than by the symbols of the tracer."""
    names = {graph.input[0].type.tensor_type.shape.dim[0].dim_param: "batch"}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for size in value.type.tensor_type.shape.dim:
            for symbol in re.findall(r"[a-z]\w*", size.dim_param):
                size.dim_param = size.dim_param.replace(symbol, names.setdefault(symbol, "n_kept"))


def description(estimator: Any, step: Step, states: list[str]) -> dict:
    """What the file's metadata say."""
    content: dict[str, Any] = {
        "class": type(estimator).__name__,
        "state": {name: ["batch", *first.shape[1:]] for name, first in zip(states, step.initial_state(1), strict=True)},
        "times": estimator.clock_,
        "channels": estimator.channel_names_,
    }
    if hasattr(estimator, "classes_"):
        content["classes"] = np.asarray(estimator.classes_).tolist()
    if hasattr(estimator, "alphabet_"):
        content["alphabet"] = [*estimator._alphabet.symbols]
    return content
