"""What a record makes a selective layer choose: steps, gates, what is kept of the state and what is written to it."""

from math import prod

import numpy as np
import pandas as pd
import torch

from statespace.inspection.parts import layer_of
from statespace.inspection.records import index_of, read_series
from statespace.layers import SelectiveMixer
from statespace.models import SaShiMi


def selection(estimator, X, times=None, *, layer=0):
    """Steps and gates of a selective layer over the time of a series.

    Parameters
    ----------
    estimator : DeepRegressor or DeepClassifier
        Fitted, with a selective layer: `statespace.layers.Mamba`, `Mamba2`, `Mamba3`, `RWKV`, `DeltaNet` or `TIDES`.
    X, times
        Series as in ``predict``.
    layer : int, default=0
        Which layer, counted from the input; negative from the output.

    Returns
    -------
    tables : list of DataFrame
        For each series a row for each sample, at its time, and columns (name, number): ``"step"``, how much time passes
        for the state, in units of the typical gap; ``"kept"``, the share of the state that a step keeps, between 0 and
        1; ``"written"``, the weight with which a sample is written; ``"gate"``, what multiplies the outputs; and what
        else the layer has, by channel, head or state. On a slower scale of `statespace.models.SaShiMi` there is a row
        for each of its steps, at the time of the last sample it has read.

    Raises
    ------
    ValueError
        The layer's system does not depend on its input, or bad X or times as in ``predict``.

    Notes
    -----
    Of a bidirectional layer they are what it chooses forwards in time; of a network that reads both strands of DNA, on
    the strand that is given. Mamba's ``"kept"`` is the mean over the states of a channel.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import MambaRegressor
    >>> from statespace.inspection import selection
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = MambaRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X[:, -1])
    >>> table = selection(reg, X[:2])[0]
    >>> table.columns.get_level_values(0).unique().tolist(), table["step"].shape
    (['step', 'kept', 'gate'], (12, 8))
    """
    collection, data, model = read_series(estimator, X, times)
    mixer, _ = layer_of(getattr(model, "strand", model), layer)
    if not isinstance(mixer, SelectiveMixer):
        raise ValueError(
            f"the system of {type(mixer).__name__} does not depend on its input. "
            "statespace.inspection.linear_system gives it: its poles and responses."
        )
    heard = []
    handle = mixer.register_forward_pre_hook(
        lambda module, args, kwargs: heard.append((args[0], kwargs.get("dt"))), with_kwargs=True
    )
    stride, tables = _stride(getattr(model, "strand", model), mixer), []
    try:
        for i in range(len(data)):
            batch = data.batch(np.array([i]))
            heard.clear()
            with torch.inference_mode():
                model.features(batch["x"], batch.get("dt"))
            tables.append(_table(mixer, heard, index_of(collection, i), stride))
    finally:
        handle.remove()
    return tables


def _stride(stack, mixer):
    """How many samples a step of the layer stands for."""
    if isinstance(stack, SaShiMi):
        for scales in (stack.descents, stack.scales):
            for i, scale in enumerate(scales):
                if any(block.mixer is mixer for block, _ in scale):
                    return prod(stack.config["factors"][:i])
    return 1


def _table(mixer, heard, index, stride):
    # Nothing is heard of a series that is shorter than a window.
    u, dt = heard[0] if heard else (torch.zeros(1, 1, mixer.d_model, dtype=torch.float64), None)
    # Of both strands the one that was given comes first.
    chosen = mixer.selection(u[:1], None if dt is None else dt[:1])
    parts = {name: part[0].numpy()[: u.shape[1] if heard else 0] for name, part in chosen.items()}
    names = [(name, number) for name, part in parts.items() for number in range(part.shape[1])]
    values = np.concatenate(list(parts.values()), axis=1)
    last = np.minimum(np.arange(1, len(values) + 1) * stride, len(index)) - 1
    columns = pd.MultiIndex.from_tuples(names, names=["name", "number"])
    return pd.DataFrame(values, index=index[last], columns=columns)
