"""A fitted deep model one sample at a time: the recurrent face, whose answers equal ``predict``'s."""

from copy import copy
from itertools import count

import numpy as np
import pandas as pd
import torch

from statespace import persistence
from statespace.streaming.clock import StreamClock
from statespace.times import scale_gaps


class LayerStream:
    """What a deep estimator's ``stream()`` returns: a state and ``step``, O(1) a sample, forever.

    Fitted to one target a step, the answer to each sample is what ``predict`` gives for that step; to one a series,
    what ``predict`` gives for the series so far. A classifier answers with the probabilities of ``predict_proba``. The
    stream has a copy of the weights of its own, so that fitting the estimator again does not change it.

    Parameters
    ----------
    estimator : DeepEstimator
        Fitted.

    Attributes
    ----------
    n_steps : int
        Samples read so far.

    Raises
    ------
    ValueError
        The model is bidirectional.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, np.cumsum(X, axis=1))
    >>> stream = reg.stream()
    >>> answers = [stream.step(x) for x in X[0]]
    >>> bool(np.allclose(answers, reg.predict(X[:1])[0]))
    True
    """

    def __init__(self, estimator):
        estimator._check_streamable()
        self._estimator = copy(estimator)  # what it learned by now, whatever it is fitted to later
        self._clock = None if estimator.clock_ is None else StreamClock(estimator.clock_, "D", estimator.time_scale_)
        self._model = estimator._copy_model(torch.device("cpu"), torch.float64).freeze()
        self._estimator.model_ = self._model
        self.reset()

    def reset(self):
        """Forget every sample; the next one is the first of a series.

        Returns
        -------
        self
        """
        self.n_steps = 0
        if self._clock is not None:
            self._clock.now = None
        self._state = self._model.initial_state(1)
        self._total = torch.zeros(())
        return self

    def step(self, x_t, dt=None, *, time=None):
        """Read one sample.

        Parameters
        ----------
        x_t : float or array-like of shape (n_channels,)
            The sample, NaN where missing; with an alphabet one symbol.
        dt : float, Timedelta or timedelta64, optional
            Time since the sample before, in the units of the times of ``fit`` (a float counts days where those were
            datetimes or timedeltas). Left out by models that were fitted without times. What leads to the first sample
            is no gap, as in ``predict``, and is ignored.
        time : float, datetime or timedelta, optional
            The time of the sample, as in ``fit``, in the place of ``dt``: from the first sample on, or not at all.

        Returns
        -------
        y : float or ndarray of shape (n_outputs,)
            Of a regressor with a ``distribution``: two, mean and standard deviation. Of a classifier: probabilities of
            shape (n_classes,).

        Raises
        ------
        ValueError
            A sample with another number of channels or an infinity, or no symbol of the alphabet; a gap that is
            missing, not positive or not finite; a gap where the model was fitted without times. The stream is then as
            it was before.
        """
        x = self._estimator._read_sample(x_t)
        gap, now = self._gap(dt) if time is None else self._gap_until(time, dt)
        with torch.inference_mode():
            h, self._state = self._model.step_features(
                torch.from_numpy(self._estimator._encode(x))[None], self._state, gap
            )
            self.n_steps += 1
            if self._clock is not None:
                self._clock.now = now
            if self._model.pooling == "mean":
                self._total = self._total + h
                h = self._total / self.n_steps
            return self._estimator._answer(self._model.head(h)[0].numpy())

    def _gap(self, dt):
        """The scaled gap (1,), or None on a regular grid; and no time."""
        if self._clock is None:
            if dt is not None:
                raise ValueError(f"This model was fitted without times: leave dt out. Got dt={dt!r}.")
            return None, None
        if self.n_steps == 0:
            return torch.ones(1, dtype=torch.float64), None
        if isinstance(dt, np.timedelta64) or hasattr(dt, "total_seconds"):
            if self._clock.kind == "numbers":
                raise ValueError(f"This model was fitted with times as numbers: give dt as a number. Got {dt!r}.")
            dt = pd.Timedelta(dt) / pd.Timedelta(1, unit="D")
        if dt is None or not 0 < dt < np.inf:
            raise ValueError(f"dt must be the positive time since the sample before. Got {dt!r} instead.")
        return torch.from_numpy(scale_gaps([float(dt)], self._clock.scale)), None

    def _gap_until(self, time, dt):
        """The scaled gap (1,) that leads to a time, and that time on the scale of the clock."""
        if dt is not None:
            raise ValueError("give dt or time, not both.")
        if self._clock is None:
            raise ValueError(f"This model was fitted without times: leave time out. Got time={time!r}.")
        now = self._clock.read(time)
        if self.n_steps == 0:
            return torch.ones(1, dtype=torch.float64), now
        if self._clock.now is None:
            raise ValueError("this stream has counted gaps, so it does not know what time it is: go on with dt.")
        if now <= self._clock.now:
            raise ValueError(
                f"times must increase: {self._clock.show(now)} follows {self._clock.show(self._clock.now)}."
            )
        gap = (now - self._clock.now) / self._clock.in_scale
        return torch.from_numpy(scale_gaps([gap], 1.0)), now

    def save(self, path):
        """Write the stream to one safetensors file; ``statespace.load(path)`` goes on from it.

        The file holds the model and the state. The answers of a stream that was loaded are those of one that was never
        stored, bit by bit.

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced as a whole if it exists.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np, statespace
        >>> X = np.random.default_rng(0).normal(size=(20, 12))
        >>> reg = statespace.S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0)
        >>> stream = reg.fit(X, np.cumsum(X, axis=1)).stream()
        >>> _ = stream.step(1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stream.save(os.path.join(folder, "stream"))
        ...     again = statespace.load(os.path.join(folder, "stream"))
        >>> again.step(2.0) == stream.step(2.0)
        True
        """
        persistence.save(self, path)

    def _export(self):
        """What `statespace.persistence.save` writes: a dict that JSON can hold, and arrays."""
        model, arrays = self._estimator._export()
        arrays = {f"estimator.{name}": array for name, array in arrays.items()}
        arrays |= {f"state.{k}": part.numpy() for k, part in enumerate(_flat(self._state))}
        state = {
            "class": type(self._estimator).__name__, "estimator": model, "n_steps": self.n_steps,
            "now": None if self._clock is None else self._clock.now,
        }  # fmt: skip
        return state, arrays | {"total": self._total.numpy()}

    @classmethod
    def _import(cls, state, arrays):
        """The stream that `_export` described."""
        parts = {name.removeprefix("estimator."): a for name, a in arrays.items() if name.startswith("estimator.")}
        stream = cls(persistence.kind(state["class"])._import(state["estimator"], parts))
        stream.n_steps, stream._total = state["n_steps"], torch.from_numpy(arrays["total"])
        if stream._clock is not None:
            stream._clock.now = state["now"]
        stream._state = _nested(stream._state, (torch.from_numpy(arrays[f"state.{k}"]) for k in count()))
        return stream


def _flat(state):
    """The tensors of a nested state, in order."""
    return [state] if isinstance(state, torch.Tensor) else [part for each in state for part in _flat(each)]


def _nested(like, parts):
    """Tensors in the structure of another state, of their kinds and numbers of axes."""
    if not isinstance(like, torch.Tensor):
        return tuple(_nested(each, parts) for each in like)
    part = next(parts)
    # A state that grows with the record has another size than that of a new stream.
    if part.dtype != like.dtype or part.ndim != like.ndim or len(part) != 1:
        raise ValueError(f"a state of {part.dtype} and shape {tuple(part.shape)} in the place of one of {like.dtype}")
    return part
