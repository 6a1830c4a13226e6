"""A fitted deep model one sample at a time: the recurrent face, whose answers equal ``predict``'s."""

from copy import copy

import numpy as np
import pandas as pd
import torch

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
        estimator = copy(estimator)  # what it learned by now, whatever it is fitted to later
        self._encode = estimator._encode
        self._read_sample = estimator._read_sample
        self._clock, self._time_scale = estimator.clock_, estimator.time_scale_
        self._answer = estimator._answer
        self._model = estimator._copy_model(torch.device("cpu"), torch.float64).freeze()
        self.reset()

    def reset(self):
        """Forget every sample; the next one is the first of a series.

        Returns
        -------
        self
        """
        self.n_steps = 0
        self._state = self._model.initial_state(1)
        self._total = torch.zeros(())
        return self

    def step(self, x_t, dt=None):
        """Read one sample.

        Parameters
        ----------
        x_t : float or array-like of shape (n_channels,)
            The sample, NaN where missing; with an alphabet one symbol.
        dt : float, Timedelta or timedelta64, optional
            Time since the sample before, in the units of the times of ``fit`` (a float counts days where those were
            datetimes or timedeltas). Left out by models that were fitted without times. What leads to the first sample
            is no gap, as in ``predict``, and is ignored.

        Returns
        -------
        y : float or ndarray of shape (n_outputs,)
            Of a regressor with a ``distribution``: two, mean and standard deviation. Of a classifier: probabilities of
            shape (n_classes,).

        Raises
        ------
        ValueError
            A sample with another number of channels or an infinity, or no symbol of the alphabet; a gap that is
            missing, not positive or not finite; a gap where the model was fitted without times.
        """
        x = self._read_sample(x_t)
        gap = self._gap(dt)
        with torch.inference_mode():
            h, self._state = self._model.step_features(torch.from_numpy(self._encode(x))[None], self._state, gap)
            self.n_steps += 1
            if self._model.pooling == "mean":
                self._total = self._total + h
                h = self._total / self.n_steps
            return self._answer(self._model.head(h)[0].numpy())

    def _gap(self, dt):
        """The scaled gap (1,), or None on a regular grid."""
        if self._clock is None:
            if dt is not None:
                raise ValueError(f"This model was fitted without times: leave dt out. Got dt={dt!r}.")
            return None
        if self.n_steps == 0:
            return torch.ones(1, dtype=torch.float64)
        if isinstance(dt, np.timedelta64) or hasattr(dt, "total_seconds"):
            if self._clock == "numbers":
                raise ValueError(f"This model was fitted with times as numbers: give dt as a number. Got {dt!r}.")
            dt = pd.Timedelta(dt) / pd.Timedelta(1, unit="D")
        if dt is None or not 0 < dt < np.inf:
            raise ValueError(f"dt must be the positive time since the sample before. Got {dt!r} instead.")
        return torch.from_numpy(scale_gaps([float(dt)], self._time_scale))
