"""Information criteria: what a likelihood is worth, given how many quantities were estimated to reach it."""

import numpy as np


class InformationCriteria:
    """Criteria of a fitted model, in the conventions of Durbin & Koopman (2012, section 7.4): smaller is better.

    A subclass has ``n_estimated_``, k, ``n_observed_``, n, and ``_maximum``, log L.

    Examples
    --------
    Which order of an ARIMA model a record asks for:

    >>> import numpy as np
    >>> from statespace.kalman import arima
    >>> y = arima((1, 0, 0)).with_params(ar=[0.7], variance=1.0).sample(300, random_state=0).observation[0]
    >>> found = {p: arima((p, 0, 0)).fit(y).bic_ for p in (0, 1, 2)}
    >>> min(found, key=found.get)
    1
    """

    n_estimated_: int
    n_observed_: int

    @property
    def _maximum(self):
        return self.log_likelihood_  # type: ignore[attr-defined]

    @property
    def aic_(self):
        """Akaike's information criterion, −2 log L + 2k with k = ``n_estimated_``."""
        return 2 * (self.n_estimated_ - self._maximum)

    @property
    def aicc_(self):
        """AIC + 2k (k + 1) / (n − k − 1), Akaike's criterion for short series; infinite for n ≤ k + 1."""
        n, k = self.n_observed_, self.n_estimated_
        return self.aic_ + (2 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.inf)

    @property
    def bic_(self):
        """Schwarz' criterion, −2 log L + k log n with n = ``n_observed_``."""
        return self.n_estimated_ * np.log(self.n_observed_) - 2 * self._maximum

    @property
    def hqic_(self):
        """Hannan and Quinn's criterion, −2 log L + 2k log log n."""
        n = max(self.n_observed_, 3)
        return 2 * self.n_estimated_ * np.log(np.log(n)) - 2 * self._maximum
