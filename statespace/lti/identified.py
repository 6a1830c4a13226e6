"""What can be done with a system once it is identified: simulate, predict, score, stream, save.

Above: ``identification``, which finds it. Below: ``prediction``.
"""

from dataclasses import fields, replace
from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from statespace.lti.parametrization import Parameters
from statespace.lti.prediction import LTIStream, ahead, estimated_states, joined, steady_states
from statespace.lti.prediction_error import simulated
from statespace.lti.records import read, read_outputs
from statespace.lti.systems import LinearSystem

_LEARNED_NUMBERS = ("clock_", "time_scale_", "n_iter_", "log_likelihood_")
_LEARNED_ARRAYS = (
    "_u_shift", "_u_scale", "_y_shift", "_y_scale", "singular_values_", "criterion_", "pole_errors_",
)  # fmt: skip


class IdentifiedSystem(RegressorMixin, BaseEstimator):
    """The half of `LTIRegressor` that needs a fitted system.

    Examples
    --------
    >>> from statespace.lti import LTIRegressor
    >>> from statespace.lti.identified import IdentifiedSystem
    >>> issubclass(LTIRegressor, IdentifiedSystem)
    True
    """

    # Times are no option that a meta-estimator must be told of: they are routed whenever they are given.
    __metadata_request__fit: ClassVar = {"times": True}
    __metadata_request__predict: ClassVar = {"times": True}
    __metadata_request__score: ClassVar = {"times": True}

    def _data(self, u, y, elapsed):
        """Records in the units of the search: variances, and the median gap, of 1."""
        u = [(part - self._u_shift) / self._u_scale for part in u]
        y = [(part - self._y_shift) / self._y_scale for part in y]
        return joined(u, y, elapsed, self.time_scale_, self.domain == "discrete", self.hold == "foh")

    def _conclude(self, found):
        """Learn the system from parameters in the units of the search."""
        self._parameters, self.initial_states_ = found, found.x0
        discrete = self.domain == "discrete"
        rate = 1.0 if discrete else 1.0 / self.time_scale_
        y_scale = self._y_scale[:, np.newaxis]
        B, C, D = found.B / self._u_scale * rate, found.C * y_scale, found.D * y_scale / self._u_scale
        self.system_ = LinearSystem(found.A * rate, B, C, D, dt=self.time_scale_ if discrete else None)
        self.order_ = len(found.A)
        self.poles_ = np.linalg.eigvals(self.system_.A).astype(complex)
        self.process_noise_ = found.L @ found.L.T * rate
        self.noise_covariance_ = found.G @ found.G.T * y_scale * self._y_scale
        self.input_mean_, self.output_offset_ = self._u_shift, self._y_shift + self._y_scale * found.offset

    def predict(self, X, y=None, times=None, *, k=1, initial_state=None):
        """The output: simulated from the input alone or, with y, predicted k samples ahead.

        Parameters
        ----------
        X : array-like
            Inputs, in the forms of `fit`.
        y : array-like, optional
            Measured outputs; NaN is missing. The prediction of sample i is made from those up to sample i − k and all
            inputs; samples before the k-th are predicted from the initial state.
        times : array-like or list of array-like, optional
            As in `fit`.
        k : int or inf, default=1
            How far ahead. ``np.inf`` simulates, and y serves to estimate the initial state only.
        initial_state : {"zero", "steady", "estimate", "fitted"} or array-like of shape (n_records, order), optional
            The state at the first sample: "zero" is the operating point; "steady" rests under the first input;
            "estimate" fits y, held near the operating point as far as the states in `fit` were near it; "fitted"
            is the one found in `fit`, of as many records. None: of a simulation, "estimate" with y, else "zero"; of
            predictions, the distribution of the states in `fit`, from which the Kalman filter finds the state with each
            sample of y.

        Returns
        -------
        ndarray of shape (n_times,) or (n_times, n_outputs), or a list of these for several records
        """
        check_is_fitted(self)
        records = read(X, times, self, reset=False)
        outputs = self._outputs_or_nan(y, records)
        data = self._data(records.u, outputs, records.elapsed(self.time_unit))
        if not (k == np.inf or is_count(k)):
            raise ValueError(f"k must be an int >= 1 or np.inf. Got {k!r}.")
        filters = y is not None and k != np.inf
        if filters and initial_state is None:
            parameters = replace(self._parameters, x0=np.zeros((len(records.u), self.order_)))
        else:
            x0 = self._first_states(initial_state, data, y is not None)
            parameters = replace(self._parameters, x0=x0, P0=np.zeros_like(self._parameters.P0))
        predicted = ahead(parameters, data, int(k)) if filters else simulated(parameters, data)
        predicted = predicted * self._y_scale + self._y_shift
        parts = np.split(predicted[:, 0] if self._single else predicted, data.starts[1:-1])
        if not records.many:
            return parts[0]
        return parts

    def simulate(self, u, times=None, initial_state=None):
        """The output that an input brings about, without noise.

        Parameters
        ----------
        u : array-like
            As X in `predict`.
        times : array-like or list of array-like, optional
        initial_state : {"zero", "steady", "fitted"} or array-like, optional
            As in `predict`.

        Returns
        -------
        ndarray of shape (n_times,) or (n_times, n_outputs), or a list of these for several records
        """
        return self.predict(u, times=times, initial_state=initial_state)

    def score(self, X, y, times=None, *, k=None, initial_state=None):
        """The coefficient of determination R² of a simulation or, with ``k``, of predictions k samples ahead.

        Parameters
        ----------
        X, y, times
            As in `fit`.
        k : int or inf, optional
            As in `predict`; None simulates without looking at y.
        initial_state : optional
            As in `predict`.

        Returns
        -------
        float
            1 − Σ(y − ŷ)² / Σ(y − ȳ)² over all samples that were seen, averaged over the outputs. In control, the fit in
            percent is 100 (1 − √(1 − R²)).
        """
        check_is_fitted(self)
        outputs, _ = read_outputs(y, read(X, times, self, reset=False))
        looks = k is not None or (isinstance(initial_state, str) and initial_state == "estimate")
        predicted = self.predict(
            X, y if looks else None, times, k=np.inf if k is None else k, initial_state=initial_state
        )
        predicted = predicted if isinstance(predicted, list) else [predicted]
        truth = np.concatenate(outputs)
        guess = np.concatenate([part.reshape(len(part), -1) for part in predicted])
        scores = [r2_score(t[~np.isnan(t)], g[~np.isnan(t)]) for t, g in zip(truth.T, guess.T, strict=True)]
        return float(np.mean(scores))

    def residuals(self, X, y, times=None, *, k=1, initial_state=None):
        """y less its prediction k samples ahead, in the form of `predict`; NaN where y is missing.

        Parameters
        ----------
        X, y, times
            As in `fit`.
        k : int or inf, default=1
        initial_state : optional
            As in `predict`.

        Returns
        -------
        ndarray of shape (n_times,) or (n_times, n_outputs), or a list of these for several records
        """
        predicted = self.predict(X, y, times, k=k, initial_state=initial_state)
        outputs, _ = read_outputs(y, read(X, times, self, reset=False))
        if isinstance(predicted, list):
            return [a.reshape(b.shape) - b for a, b in zip(outputs, predicted, strict=True)]
        return outputs[0].reshape(predicted.shape) - predicted

    def bode(self, frequencies=None):
        """Magnitude and phase of the identified system.

        Parameters
        ----------
        frequencies : array-like, optional
            Cycles per unit of time. None: around the poles.

        Returns
        -------
        Bode
            As of `LinearSystem.bode`.
        """
        check_is_fitted(self)
        return self.system_.bode(frequencies)

    def stream(self, initial_state=None):
        """A predictor that takes one sample at a time, at constant cost.

        Parameters
        ----------
        initial_state : array-like of shape (order,), optional
            At the first sample; by default it has the distribution of the states in `fit`.

        Returns
        -------
        LTIStream
        """
        check_is_fitted(self)
        return LTIStream(self, initial_state)

    def _outputs_or_nan(self, y, records):
        p = len(self._y_scale)
        if y is None:
            return [np.full((len(u), p), np.nan) for u in records.u]
        outputs, _ = read_outputs(y, records)
        if outputs[0].shape[1] != p:
            raise ValueError(f"y must have the {p} output(s) of fit, got {outputs[0].shape[1]}.")
        return outputs

    def _first_states(self, given, data, has_y):
        n, n_records = self.order_, len(data.starts) - 1
        given = ("estimate" if has_y else "zero") if given is None else given
        if not isinstance(given, str):
            x0 = np.asarray(given, dtype=float)
            x0 = x0[np.newaxis] if x0.ndim == 1 else x0
            if x0.shape != (n_records, n) or not np.isfinite(x0).all():
                raise ValueError(f"initial_state must be finite and of shape {(n_records, n)}. Got shape {x0.shape}.")
            return x0
        if given == "zero":
            return np.zeros((n_records, n))
        if given == "steady":
            return steady_states(self._parameters, data)
        if given == "estimate":
            if not has_y:
                raise ValueError("initial_state='estimate' needs y. Give it, or take 'zero' or 'steady'.")
            return estimated_states(self._parameters, data)
        if given == "fitted":
            if len(self.initial_states_) != n_records:
                raise ValueError(
                    f"initial_state='fitted' has the states of {len(self.initial_states_)} records, and X holds "
                    f"{n_records}."
                )
            return self.initial_states_
        raise ValueError(f"initial_state must be 'zero', 'steady', 'estimate', 'fitted' or an array. Got {given!r}.")

    # Saving.

    def _export(self):
        """What `statespace.persistence.save` writes: a dict that JSON can hold, and arrays."""
        check_is_fitted(self)
        params = self.get_params(deep=False)
        if not isinstance(self.random_state, Integral):
            params["random_state"] = None
        learned = {name: getattr(self, name) for name in _LEARNED_ARRAYS}
        arrays = {name: part for name, part in (vars(self._parameters) | learned).items() if part is not None}
        state = {
            "params": params, "single": self._single, "n_features_in": self.n_features_in_,
            "feature_names_in": [str(name) for name in getattr(self, "feature_names_in_", [])],
            "learned": {name: getattr(self, name) for name in _LEARNED_NUMBERS},
        }  # fmt: skip
        return state, arrays

    @classmethod
    def _import(cls, state, arrays):
        """The fitted estimator that `_export` described."""
        self = cls(**state["params"])
        self._single, self.n_features_in_ = state["single"], state["n_features_in"]
        if state["feature_names_in"]:
            self.feature_names_in_ = np.array(state["feature_names_in"], dtype=object)
        for name in _LEARNED_NUMBERS:
            setattr(self, name, state["learned"][name])
        for name in _LEARNED_ARRAYS:
            setattr(self, name, arrays.get(name))
        self._conclude(Parameters(**{field.name: arrays[field.name] for field in fields(Parameters)}))
        return self

    def save(self, path):
        """Write the fitted estimator to one safetensors file; ``statespace.load(path)`` reads it.

        A ``random_state`` that is no integer is not kept.

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced as a whole if it exists.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            The estimator is not fitted.
        """
        from statespace import persistence

        persistence.save(self, path)


def is_count(value):
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1
