"""A fitted Kalman model on one page."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm


@dataclass(frozen=True)
class Summary:
    """What `KalmanRegressor.summary` returns: printed as text, shown as HTML in notebooks.

    Attributes
    ----------
    model : str
        The process, with the noise.
    parameters : DataFrame
        Estimate, standard error, z = estimate / standard error, and the confidence interval (``lower``, ``upper``),
        symmetric about the logarithm of what is positive. NaN at a bound.
    criteria : Series
        Log-likelihood, AIC, AICc, BIC, HQIC, the numbers of observed samples and of estimated quantities.
    diagnostics : DataFrame
        As `KalmanRegressor.diagnostics`.
    states : DataFrame
        The final states, as `KalmanRegressor.final_states`.
    level : float
        Of the confidence intervals.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel
    >>> gp = KalmanRegressor(LocalLevel(1.0), noise_variance=1.0, optimizer=None)
    >>> summary = gp.fit(np.arange(5.0)[:, np.newaxis], [1.0, 2.0, 0.5, 2.0, 1.5]).summary()
    >>> print(str(summary).splitlines()[0])
    LocalLevel(variance=1), gaussian noise
    """

    model: str
    parameters: pd.DataFrame
    criteria: pd.Series
    diagnostics: pd.DataFrame
    states: pd.DataFrame
    level: float

    @classmethod
    def of(cls, regressor, level=0.95):
        """The summary of a fitted regressor.

        Raises
        ------
        ValueError
            If the level does not lie between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1. Got {level!r}.")
        table = regressor.params_
        estimate, error = table["estimate"], table["standard_error"]
        width = np.exp(norm.ppf((1 + level) / 2) * error / estimate)
        parameters = pd.DataFrame(
            {
                "estimate": estimate,
                "standard_error": error,
                "z": estimate / error,
                "lower": estimate / width,
                "upper": estimate * width,
                "at_bound": table["at_bound"],
            }
        )
        criteria = pd.Series(
            {
                "log_likelihood": regressor.log_marginal_likelihood_value_,
                "aic": regressor.aic_,
                "aicc": regressor.aicc_,
                "bic": regressor.bic_,
                "hqic": regressor.hqic_,
                "n_observed": regressor.n_observed_,
                "n_estimated": regressor.n_estimated_,
            },
            name="value",
        )
        # Where each series has parameters of its own, the process is named as it was given.
        process = getattr(regressor, "process_", regressor.process)
        model = f"{process!r}, {regressor.noise} noise"
        return cls(model, parameters, criteria, regressor.diagnostics(), regressor.final_states(), level)

    def _parts(self):
        criteria = self.criteria.to_frame().T
        counts = ["n_observed", "n_estimated"]
        criteria = criteria.astype(dict.fromkeys(counts, int))
        if len(self.parameters):
            yield f"Parameters ({self.level:.0%} intervals)", self.parameters, True
        yield "Criteria", criteria, False
        yield "Standardised innovations", self.diagnostics, True
        yield "States at the last time", self.states, True

    def __str__(self):
        sections = [self.model]
        for title, table, labelled in self._parts():
            text = table.to_string(index=labelled, float_format=lambda value: f"{value:.6g}", na_rep="")
            sections.append(f"{title}\n{'-' * len(title)}\n{text}")
        return "\n\n".join(sections)

    __repr__ = __str__

    def _repr_html_(self):
        from html import escape

        sections = [f"<p><code>{escape(self.model)}</code></p>"]
        for title, table, labelled in self._parts():
            text = table.to_html(index=labelled, float_format=lambda value: f"{value:.6g}", na_rep="", border=0)
            sections.append(f"<h4>{escape(title)}</h4>\n{text}")
        return "<div>" + "\n".join(sections) + "</div>"
