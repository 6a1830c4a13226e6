"""The log-likelihood of records that share a process and a noise variance, as a function of θ.

Above: `fitting`, which climbs it, and `robust` and `priors`, which change it. Below: `binding`, and `powers` and
`differencing`, which make it quick for a search.
"""

import numpy as np

from statespace.kalman.differencing import differenced
from statespace.kalman.powers import powers
from statespace.kernels.kalman_filter.prepared import Prepared

# Of many series, start values are compared on no fewer than this.
_FEWEST = 5
# Fewer diffuse directions than this are told apart well by the first samples.
_MANY_DIRECTIONS = 3


class Likelihood:
    """The log-likelihood of several series that share a process and a noise variance, as a function of θ.

    θ holds the logarithms of the process' free parameters and, where the noise variance is fitted, its own last.

    Parameters
    ----------
    process : Component
        In scaled units.
    records : list of (Binding, ndarray of shape (n_times, n_outputs), noise)
        Each with y, NaN where missing, and the known noise variances, a float or an ndarray of shape (n_times,) or
        (n_times, n_outputs), or None where one noise variance is fitted. A binding may hold many series.
    rough : bool, default=False
        Whether it may err by some thousandths where the first samples hardly tell the diffuse directions apart.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.binding import Binding
    >>> from statespace.kalman.likelihood import Likelihood
    >>> process = LocalLevel()
    >>> binding = Binding(process, np.array([0.0, 1.0, 1.0]))
    >>> likelihood = Likelihood(process, [(binding, np.array([[0.0], [1.0], [0.5]]), None)])
    >>> value, gradient = likelihood.gradient(np.zeros(2))
    >>> gradient.shape
    (2,)
    """

    def __init__(self, process, records, rough=False):
        self.process, self.rough = process, rough
        self.records = records
        self.n_process = len(process.free)
        self.n_observed = sum(int(np.isfinite(y).sum()) for _, y, _ in records)
        self.noise_is_fitted = all(known is None for _, _, known in records)
        # What a search asks often is made ready when it is asked for the third time.
        self._asked, self._powers = 0, None
        self._ready: list[Prepared] = []

    def __getstate__(self):
        return vars(self) | {"_asked": 0, "_ready": []}

    def _prepared(self):
        """What the kernel needs for each record and output, checked and laid out; None where it must be made anew."""
        self._asked += 1
        if self._asked < 3 and not self.rough:
            return None
        if self._powers is None:
            alike = self.noise_is_fitted or all(known is not None for _, _, known in self.records)
            self._powers = (powers(self.process) if alike else None) or ()
        if self._powers and not self._ready:
            self._ready = [
                binding.prepared(column, 1.0 if known is None else _of(known, k), self._powers[0].moves, self.rough)
                for binding, y, known in self.records
                for k, column in enumerate(y.T)
            ]
        return self._ready or None

    def _bound(self, theta):
        theta = np.asarray(theta, dtype=float)
        process = self.process.clone_with_theta(theta[: self.n_process])
        for binding, y, known in self.records:
            noise = float(np.exp(theta[-1])) if known is None else known
            yield binding.bind(process), y, noise, known is None

    def value(self, theta):
        """The log-likelihood at ``theta``; −inf where it is not defined."""
        theta, total, ready = np.asarray(theta, dtype=float), 0.0, self._prepared()
        with np.errstate(all="ignore"):
            for prepared in self._written(theta, ready or ()):
                total += float(np.sum(prepared.log_likelihood()))
            for binding, y, noise, _ in () if ready else self._bound(theta):
                total += sum(binding.log_likelihood(column, _of(noise, k)) for k, column in enumerate(y.T))
        return total if np.isfinite(total) else -np.inf

    def gradient(self, theta):
        """The log-likelihood at ``theta`` and its gradient of shape (len(theta),)."""
        theta, total, by_theta = np.asarray(theta, dtype=float), 0.0, np.zeros(len(theta))
        ready = self._prepared()
        with np.errstate(all="ignore"):
            for prepared in self._written(theta, ready or ()):
                value, by = prepared.gradient()
                total += float(np.sum(value))
                by_theta[: self.n_process] += self._powers[0].pullback(by.parameters)
                by_theta[: self.n_process] += self._powers[1].pullback(by.covariance)
                if self.noise_is_fitted:
                    by_theta[-1] += prepared.noise_variance[0] * by.noise_variance[0]
            for binding, y, noise, fitted in () if ready else self._bound(theta):
                for k, column in enumerate(y.T):
                    value, by_process, by_noise = binding.gradient(column, _of(noise, k))
                    total += value
                    by_theta[: self.n_process] += by_process
                    if fitted:
                        by_theta[-1] += noise * np.sum(by_noise)
        if not (np.isfinite(total) and np.isfinite(by_theta).all()):
            return -np.inf, np.zeros(len(theta))
        return total, by_theta

    def _written(self, theta, ready):
        """Each of what is ``ready``, with the numbers that θ stands for."""
        for prepared in ready:
            for numbers, out in zip(self._powers, (prepared.parameters, prepared.covariance), strict=True):
                numbers.write(theta[: self.n_process], out)
            if self.noise_is_fitted:
                prepared.noise_variance[0] = np.exp(theta[-1])
            yield prepared

    def quick(self):
        """The same likelihood by a quicker way, to search with; None if there is none."""
        return differenced(self)

    def roughly(self):
        """The same likelihood with ``rough``; None where that would change nothing."""
        if self.process.initial()[2].shape[-1] < _MANY_DIRECTIONS:
            return None
        rough = Likelihood(self.process, self.records, rough=True)
        rough._powers = self._powers
        return rough if rough._prepared() else None

    def head(self, n):
        """The likelihood of about the first n samples that were observed; of many series, of some spread evenly."""
        if n >= self.n_observed:
            return self
        records = []
        for binding, y, known in self.records:
            seen = np.isfinite(y).any(axis=1)
            if binding.starts is None:
                samples, starts = slice(0, np.searchsorted(np.cumsum(seen), n) + 1), None
            else:
                samples, starts = _some_series(binding.starts, seen, n)
            noise = known[samples] if np.ndim(known) else known
            records.append((binding.take(samples, starts), y[samples], noise))
        head = Likelihood(self.process, records, self.rough)
        head._powers = self._powers
        return head


def _of(noise, output):
    return noise[:, output] if np.ndim(noise) == 2 else noise


def _some_series(starts, seen, n):
    """The samples of about as many series as hold n observed ones, spread evenly, and where each starts among them."""
    counts = np.add.reduceat(seen.astype(np.int64), starts[:-1])
    used = np.flatnonzero(counts)
    wanted = int(np.clip(np.ceil(n * len(used) / max(counts.sum(), 1)), min(_FEWEST, len(used)), len(used)))
    chosen = used[np.linspace(0, len(used) - 1, wanted).astype(np.intp)]
    taken = np.minimum(np.diff(starts)[chosen], -(-n // wanted))
    ends = np.cumsum(taken)
    samples = np.arange(ends[-1]) + np.repeat(starts[:-1][chosen] - ends + taken, taken)
    return samples, np.append(0, ends).astype(np.int64)
