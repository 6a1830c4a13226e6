"""Outputs over many series in bounded memory: short series together, long ones in chunks with carried state."""

import numpy as np
import torch
from torch import Tensor

from statespace.models.stack import ResidualStack

# Steps of a batch that are held at once: at d_model 64 in float64 some 30 MB for each array of features.
MAX_STEPS = 32_768


def predict_steps(model: ResidualStack, data, max_steps: int = MAX_STEPS) -> list[np.ndarray]:
    """Outputs at every step of every series.

    Parameters
    ----------
    model : ResidualStack
        Without pooling.
    data : SeriesBatches
        The series, on the model's device and in its type.
    max_steps : int
        Steps that are computed at once. A bidirectional model reads each series whole.

    Returns
    -------
    outputs : list of ndarray of shape (n_times_i, d_output)

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace.models import ResidualStack, predict_steps
    >>> from statespace.training import SeriesBatches
    >>> data = SeriesBatches([np.zeros((5, 1)), np.ones((30, 1))])
    >>> model = ResidualStack(1, 2, d_model=4, n_layers=1, layer_options={"d_state": 4}).eval()
    >>> [row.shape for row in predict_steps(model, data, max_steps=8)]
    [(5, 2), (30, 2)]
    """
    outputs = [np.empty(0)] * len(data)
    with torch.inference_mode():
        for indices in _groups(data.lengths, max_steps):
            parts = [model.head(h) for h, _ in _chunks(model, data, indices, max_steps)]
            values = torch.cat(parts, dim=1).cpu().numpy()
            for i, row in zip(indices, values, strict=True):
                outputs[i] = row[: data.lengths[i]]
    return outputs


def predict_series(model: ResidualStack, data, max_steps: int = MAX_STEPS) -> np.ndarray:
    """One output for every series, its features pooled as the model does.

    Parameters
    ----------
    model : ResidualStack
        With pooling.
    data, max_steps
        As in `predict_steps`.

    Returns
    -------
    outputs : ndarray of shape (n_series, d_output)

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace.models import ResidualStack, predict_series
    >>> from statespace.training import SeriesBatches
    >>> data = SeriesBatches([np.zeros((5, 1)), np.ones((30, 1))])
    >>> model = ResidualStack(1, 2, d_model=4, n_layers=1, layer_options={"d_state": 4}, pooling="last").eval()
    >>> predict_series(model, data, max_steps=8).shape
    (2, 2)
    """
    outputs: list[np.ndarray] = [np.empty(0)] * len(data)
    with torch.inference_mode():
        for indices in _groups(data.lengths, max_steps):
            total: Tensor | float = 0.0
            steps = 0
            for h, lengths in _chunks(model, data, indices, max_steps):
                pooled = model.pool(h, lengths)
                if model.pooling == "mean":
                    total = total + pooled * lengths[:, None]
                    steps = steps + lengths[:, None]
                else:
                    total, steps = pooled, 1
            values = model.head(total / steps).cpu().numpy()
            for i, row in zip(indices, values, strict=True):
                outputs[i] = row
    return np.stack(outputs)


def _groups(lengths: np.ndarray, max_steps: int):
    """Indices of series that are computed together: of like length, ``max_steps`` at most with their padding."""
    group: list[int] = []
    for i in np.argsort(lengths, kind="stable"):
        if group and (len(group) + 1) * lengths[i] > max_steps:
            yield np.array(group)
            group = []
        group.append(int(i))
    yield np.array(group)


def _chunks(model: ResidualStack, data, indices: np.ndarray, max_steps: int):
    """Features (B, L, d_model) and lengths (B,), chunk by chunk with the state carried on."""
    longest = int(data.lengths[indices].max())
    size = max_steps if model.causal else longest
    state = None
    for start in range(0, longest, size):
        batch = data.batch(indices, start, min(start + size, longest))
        h, state = model.features(batch["x"], batch.get("dt"), state)
        yield h, batch["lengths"]
