"""The estimator contract of the deep models: series and times in, scaled inputs and gaps out.

Above: ``regression``. Below: ``validation`` checks what is given, ``persistence`` writes what was learned.
"""

import re
import warnings
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from statespace import persistence
from statespace.alphabets import Alphabet
from statespace.readers import StoredRows
from statespace.statistics import Moments
from statespace.stored import StoredSeries
from statespace.validation import (
    check_collection,
    check_times_as_fitted,
    clock,
    median_gap,
    scale_gaps,
)
from statespace.weights import check_sample_weight, series_weights


def mean_and_scale(arrays, weights=None):
    """Mean and standard deviation of every column over the rows of all arrays, NaN left out.

    A column without spread has scale 1, one without values also mean 0.

    Parameters
    ----------
    arrays : list of ndarray of shape (n_i, n_columns), or StoredRows
    weights : list of float or of ndarray of shape (n_i,), optional
        The weight of each array, or of its rows.

    Returns
    -------
    mean, scale : ndarray of shape (n_columns,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.base import mean_and_scale
    >>> mean_and_scale([np.array([[1.0, 5.0]]), np.array([[3.0, np.nan]])])
    (array([2., 5.]), array([1., 1.]))
    """
    if isinstance(arrays, StoredRows):
        return arrays.learn(weights).moments.mean_and_scale()
    moments = Moments()
    for i, rows in enumerate(arrays):
        moments.add(rows, None if weights is None else weights[i])
    return moments.mean_and_scale()


class SeriesEstimator(BaseEstimator):
    """What deep estimators share: rows of X are series, times travel with X or as ``times=``.

    Learned by every subclass's ``fit``:

    Attributes
    ----------
    n_channels_ : int
        Channels of X.
    channel_names_ : list of str or None
        Their names, from DataFrames.
    n_features_in_ : int
        Columns of X, if X was a table of shape (n_series, n_times), also as nested lists; tables that follow must have
        as many, lists of series need not.
    x_mean_, x_scale_ : ndarray of shape (n_channels_,)
        Mean and standard deviation of the observed values of each channel; there are none with an alphabet.
    alphabet_ : str, int or list
        Only with an alphabet, whose symbols X then holds.
    has_missing_ : bool
        Whether X had missing values; the model then also reads which values are observed.
    clock_ : {"numbers", "datetimes", "timedeltas"} or None
        The kind of times; None if there were none.
    time_scale_ : float
        Median gap, in units of the times; in days for datetimes and timedeltas. 1 without times.

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.base import SeriesEstimator
    >>> issubclass(S4DRegressor, SeriesEstimator)
    True
    """

    # Times are no option that a meta-estimator must be told of: they are routed whenever they are given.
    __metadata_request__fit: ClassVar = {"times": True}
    __metadata_request__predict: ClassVar = {"times": True}
    __metadata_request__score: ClassVar = {"times": True}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        if self.alphabet is not None:
            tags.input_tags.string = True
        return tags

    alphabet: Any = None

    @property
    def _alphabet(self):
        """The alphabet of ``fit``; None for numbers."""
        spec = vars(self).get("alphabet_")
        return None if spec is None else Alphabet.of(tuple(spec) if isinstance(spec, list) else spec)

    def _learn_inputs(self, X, times, sample_weight=None):
        """The checked series of ``fit`` and their weights, None if all weigh the same; learns how to encode them."""
        for name in ("alphabet_", "x_mean_", "x_scale_"):
            vars(self).pop(name, None)
        if self.alphabet is not None:
            spec = Alphabet(self.alphabet).spec
            self.alphabet_ = list(spec) if isinstance(spec, tuple) else spec
        collection = check_collection(
            X, times, estimator=self, reset=True, allow_equal=False, alphabet=self._alphabet, stored=True
        )
        if self.alphabet is None and _is_nested_table(X):
            self.n_features_in_ = int(collection.lengths[0])
        self.n_channels_ = collection.n_channels
        self.channel_names_ = _names(collection)
        if isinstance(collection, StoredSeries):
            self.clock_ = collection.clock
        else:
            self.clock_ = None if collection.times is None else clock(collection.times[0])
        weights = check_sample_weight(sample_weight, collection)
        self._learn_scales(collection, weights)
        return collection, weights

    def _learn_scales(self, collection, weights=None):
        """What the inputs are divided by, and whether the network has to be told what is missing."""
        if isinstance(collection, StoredSeries):
            learned = collection.learn(per=getattr(self, "target", "auto"), weights=weights)
            self.time_scale_, self.has_missing_ = learned.time_scale, learned.missing
            if self.alphabet is None:
                self.x_mean_, self.x_scale_ = learned.mean, learned.scale
            return
        shares = series_weights(weights)
        self.time_scale_ = 1.0 if collection.times is None else median_gap(collection.times, weights=shares)
        if self.alphabet is None:
            self.x_mean_, self.x_scale_ = mean_and_scale(collection.values, shares)
        observed = zip(collection.observed, np.ones(len(collection)) if shares is None else shares, strict=True)
        self.has_missing_ = not all(seen.all() for seen, weight in observed if weight > 0)

    def _read(self, X, times):
        """The checked series of ``predict``."""
        check_is_fitted(self)
        collection = check_collection(
            X, times, estimator=self, n_channels=self.n_channels_, allow_equal=False, alphabet=self._alphabet,
            stored=True,
        )  # fmt: skip
        check_times_as_fitted(collection, self.clock_)
        if isinstance(collection, StoredSeries):
            return collection
        names = _names(collection)
        if None not in (names, self.channel_names_) and names != self.channel_names_:
            raise ValueError(
                f"X has the columns {names}, but {type(self).__name__} was fitted with {self.channel_names_}. "
                "Give the same columns in the same order."
            )
        if not self.has_missing_ and any(np.isnan(values).any() for values in collection.values):
            self._warn_of_missing(stacklevel=4)
        return collection

    def _warn_of_missing(self, stacklevel):
        warnings.warn(
            f"X has missing values, but {type(self).__name__} was fitted without any: it takes them for the mean "
            "of their channel. Fit it on series with missing values and it learns to tell them apart.",
            UserWarning,
            stacklevel=stacklevel,
        )

    def _encode_read(self, values):
        """`_encode` of a piece of stored series, which are not looked through for missing values before."""
        if self._alphabet is None and not self.has_missing_ and np.isnan(values).any():
            self._warn_of_missing(stacklevel=2)
        return self._encode(values)

    def _encode(self, values):
        """Scaled values of shape (..., n_channels_), missing ones 0; after them the observed mask if it was learned.

        Of codes the rows of the alphabet.
        """
        if self._alphabet is not None:
            return self._alphabet.rows[values[..., 0].astype(np.int64)]
        scaled = (values - self.x_mean_) / self.x_scale_
        missing = np.isnan(scaled)
        scaled[missing] = 0.0
        return np.concatenate([scaled, ~missing], axis=-1) if self.has_missing_ else scaled

    @property
    def _n_inputs(self):
        if self._alphabet is not None:
            return len(self._alphabet)
        return self.n_channels_ * (2 if self.has_missing_ else 1)

    def _read_sample(self, x_t):
        """The checked values (n_channels_,) of one sample of a stream, or the code (1,) of one symbol."""
        if self._alphabet is None:
            x = np.array(x_t, dtype=np.float64).reshape(-1)
            if len(x) != self.n_channels_ or np.isinf(x).any():
                raise ValueError(
                    f"x_t must hold {self.n_channels_} finite value(s), or NaN where missing. Got {x_t!r}."
                )
            return x
        codes = self._alphabet.encode(
            x_t if isinstance(x_t, list | tuple | np.ndarray) and np.ndim(x_t) else [x_t], "x_t"
        )
        if len(codes) != 1:
            raise ValueError(f"x_t must be one symbol. Got {x_t!r}; give a sequence symbol by symbol.")
        return codes

    def _scaled_gaps(self, collection):
        """Scaled gaps of every series, the first of each 1; None without times."""
        gaps = collection.gaps(first=self.time_scale_)
        return None if gaps is None else [scale_gaps(g, self.time_scale_) for g in gaps]

    def save(self, path):
        """Write the fitted estimator to one safetensors file; ``statespace.load(path)`` reads it.

        A ``random_state`` that is no integer is not kept (predictions do not depend on it).

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced as a whole if it exists.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            The estimator is not fitted.
        """
        persistence.save(self, path)


def set_learned(estimator, name, value):
    """Give an estimator what a file says that it learned, under no name but one of those that ``fit`` learns.

    Parameters
    ----------
    estimator : estimator
    name : str
    value : object

    Raises
    ------
    KeyError
        Another name, such as that of a method.

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.base import set_learned
    >>> reg = S4DRegressor()
    >>> set_learned(reg, "n_channels_", 2)
    >>> set_learned(reg, "predict", 2)
    Traceback (most recent call last):
    KeyError: "nothing called 'predict' is learned"
    """
    if not re.fullmatch("[a-z][a-z0-9_]*_", name) or hasattr(type(estimator), name):
        raise KeyError(f"nothing called {name!r:.50} is learned")
    setattr(estimator, name, value)


def _is_nested_table(X):
    """Whether X holds rows of scalars, all of one length, as a table written out does."""
    return isinstance(X, list | tuple) and all(isinstance(x, list | tuple) for x in X) and np.ndim(X[0]) == 1


def _names(collection):
    """The names of the channels as text; None if they have none."""
    if collection.columns is None or all(name is None for name in collection.columns):
        return None
    return [str(name) for name in collection.columns]
