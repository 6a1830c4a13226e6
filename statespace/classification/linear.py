"""A classifier for each linear layer: S4, S4D, S5, H3."""

from dataclasses import dataclass

from statespace.classification.ssm import DeepClassifier
from statespace.parameters import H3Parameters, S4DParameters, S4Parameters, S5Parameters


@dataclass(eq=False, repr=False)
class S4DClassifier(S4DParameters, DeepClassifier):
    """Classification of series, or of their steps, with a stack of S4D layers: diagonal systems in continuous time.

    Parameters
    ----------
    d_model, n_layers, class_weight, bidirectional, dropout, pooling, max_epochs, ...
        And all others but the following, and the attributes: as in `SSMClassifier`, ``layer="s4d"``.
    d_state : int, default=64
        Real dimension of each system's state.
    init, discretization, dt_min, dt_max
        As in `S4DRegressor`.

    Examples
    --------
    A label for every step, whether the last jump was upwards:

    >>> import numpy as np
    >>> from statespace import S4DClassifier
    >>> X = np.random.default_rng(0).normal(size=(40, 30))
    >>> y = np.where(X > 0, "up", "down")
    >>> clf = S4DClassifier(d_model=8, n_layers=1, d_state=4, max_epochs=10, random_state=0).fit(X, y)
    >>> clf.predict(X).shape
    (40, 30)
    >>> stream = clf.stream()
    >>> [str(clf.classes_[stream.step(x).argmax()]) for x in X[0, :3]] == clf.predict(X[:1])[0, :3].tolist()
    True
    """


@dataclass(eq=False, repr=False)
class S5Classifier(S5Parameters, DeepClassifier):
    """Classification of series, or of their steps, with a stack of S5 layers: one system for all channels.

    Parameters
    ----------
    d_model, n_layers, class_weight, bidirectional, dropout, pooling, max_epochs, ...
        And all others but the following, and the attributes: as in `SSMClassifier`, ``layer="s5"``.
    d_state : int, default=64
        Real dimension of the system's state.
    n_blocks, init, discretization, dt_min, dt_max
        As in `S5Regressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S5Classifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 15, 2)), np.repeat(["rest", "walk"], 10)
    >>> X[y == "walk"] += np.sin(np.arange(15.0))[:, None]
    >>> clf = S5Classifier(d_model=8, n_layers=1, d_state=8, max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X).shape
    (20, 2)
    """


@dataclass(eq=False, repr=False)
class H3Classifier(H3Parameters, DeepClassifier):
    """Classification of series, or of their steps, with a stack of H3 layers: two systems and two gates.

    Parameters
    ----------
    d_model, n_layers, class_weight, bidirectional, dropout, pooling, max_epochs, ...
        And all others but the following, and the attributes: as in `SSMClassifier`, ``layer="h3"``.
    d_state : int, default=64
        Real dimension of each diagonal system's state.
    d_shift, head_dim, init, discretization, dt_min, dt_max
        As in `H3Regressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import H3Classifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 15, 2)), np.repeat(["rest", "walk"], 10)
    >>> X[y == "walk"] += np.sin(np.arange(15.0))[:, None]
    >>> clf = H3Classifier(d_model=8, n_layers=1, d_state=8, max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X).shape
    (20, 2)
    """


@dataclass(eq=False, repr=False)
class S4Classifier(S4Parameters, DeepClassifier):
    """Classification of series, or of their steps, with a stack of S4 layers: diagonal plus low-rank systems.

    Parameters
    ----------
    d_model, n_layers, class_weight, bidirectional, dropout, pooling, max_epochs, ...
        And all others but the following, and the attributes: as in `SSMClassifier`, ``layer="s4"``.
    d_state : int, default=64
        Real dimension of each system's state.
    measure, rank, dt_min, dt_max
        As in `S4Regressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4Classifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(20, 15, 2)), np.repeat(["rest", "walk"], 10)
    >>> X[y == "walk"] += np.sin(np.arange(15.0))[:, None]
    >>> clf = S4Classifier(d_model=8, n_layers=1, d_state=8, max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X).shape
    (20, 2)
    """
