"""A classifier for each layer that chooses from its input what it keeps: Mamba, Mamba-2, RWKV, DeltaNet."""

from dataclasses import dataclass

from statespace.classification.ssm import DeepClassifier
from statespace.parameters import DeltaNetParameters, Mamba2Parameters, MambaParameters, RWKVParameters


@dataclass(eq=False, repr=False)
class MambaClassifier(MambaParameters, DeepClassifier):
    """Classification of series, or of their steps, with a stack of Mamba layers: steps that the samples choose.

    Parameters
    ----------
    d_model, n_layers, moe, class_weight, bidirectional, dropout, pooling, max_epochs, ...
        And all others but the following, and the attributes: as in `SSMClassifier`, ``layer="mamba"``.
    d_state : int, default=16
        Numbers in the state of each inner channel.
    d_conv, expand, dt_rank, dt_min, dt_max
        As in `MambaRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import MambaClassifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 15, 2)), np.repeat(["rest", "walk"], 10)
    >>> X[y == "walk"] += np.sin(np.arange(15.0))[:, None]
    >>> clf = MambaClassifier(d_model=8, n_layers=1, d_state=4, max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X).shape
    (20, 2)
    """


@dataclass(eq=False, repr=False)
class Mamba2Classifier(Mamba2Parameters, DeepClassifier):
    """Classification of series, or of their steps, with a stack of Mamba-2 layers: one selective decay for a head.

    Parameters
    ----------
    d_model, n_layers, moe, class_weight, bidirectional, dropout, pooling, max_epochs, ...
        And all others but the following, and the attributes: as in `SSMClassifier`, ``layer="mamba2"``.
    d_state : int, default=64
        Numbers in the state of each inner channel.
    d_conv, expand, head_dim, n_groups, dt_min, dt_max
        As in `Mamba2Regressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import Mamba2Classifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 15, 2)), np.repeat(["rest", "walk"], 10)
    >>> X[y == "walk"] += np.sin(np.arange(15.0))[:, None]
    >>> clf = Mamba2Classifier(d_model=8, n_layers=1, d_state=4, max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X).shape
    (20, 2)
    """


@dataclass(eq=False, repr=False)
class RWKVClassifier(RWKVParameters, DeepClassifier):
    """Classification of series, or of their steps, with a stack of RWKV layers: averages that decay with time.

    Parameters
    ----------
    d_model, n_layers, moe, class_weight, bidirectional, dropout, pooling, max_epochs, ...
        And all others, and the attributes: as in `SSMClassifier`, ``layer="rwkv"``.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import RWKVClassifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 15, 2)), np.repeat(["rest", "walk"], 10)
    >>> X[y == "walk"] += np.sin(np.arange(15.0))[:, None]
    >>> clf = RWKVClassifier(d_model=8, n_layers=1, max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X).shape
    (20, 2)
    """


@dataclass(eq=False, repr=False)
class DeltaNetClassifier(DeltaNetParameters, DeepClassifier):
    """Classification of series, or of their steps, with a stack of DeltaNet layers: memories that correct themselves.

    Parameters
    ----------
    d_model, n_layers, moe, class_weight, bidirectional, dropout, pooling, max_epochs, ...
        And all others but the following, and the attributes: as in `SSMClassifier`, ``layer="deltanet"``.
    n_heads, d_conv, gated
        As in `DeltaNetRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import DeltaNetClassifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 15, 2)), np.repeat(["rest", "walk"], 10)
    >>> X[y == "walk"] += np.sin(np.arange(15.0))[:, None]
    >>> clf = DeltaNetClassifier(d_model=8, n_layers=1, max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X).shape
    (20, 2)
    """
