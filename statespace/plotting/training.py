"""The loss of every epoch, in training and on series held out."""

import numpy as np
import pandas as pd

from statespace.plotting.axes import one_axis


class TrainingDisplay:
    """The training curve of a deep estimator: its losses by epoch, and the epoch whose weights were kept.

    Made by `from_estimator` or `from_history`, which draw it; `plot` draws it again.

    Parameters
    ----------
    history : DataFrame
        A row for each epoch and a column for each loss.
    best_epoch : int, optional
        The epoch whose weights were kept, of those in the index of ``history``.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    lines_ : list of matplotlib.lines.Line2D
        A curve for each column; behind them, if it is known, the best epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> from statespace.plotting import TrainingDisplay
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=3, random_state=0).fit(X, X[:, -1])
    >>> display = TrainingDisplay.from_estimator(reg)
    >>> [line.get_label() for line in display.lines_][:2]
    ['loss', 'validation loss']
    """

    def __init__(self, history, best_epoch=None):
        self.history, self.best_epoch = history, best_epoch

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **options):
        """Draw the losses of `fit`.

        Parameters
        ----------
        estimator : DeepEstimator or DeepForecaster
            Fitted.
        ax : matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        TrainingDisplay

        Raises
        ------
        ValueError
            The estimator has no history of training: it is not fitted, or not trained by epochs.
        """
        history = getattr(estimator, "history_", None)
        if not isinstance(history, pd.DataFrame):
            raise ValueError(
                f"this {type(estimator).__name__} has no history_ of losses: fit a deep estimator first, or give the "
                "losses to TrainingDisplay.from_history."
            )
        return cls(history, getattr(estimator, "best_epoch_", None)).plot(ax, **options)

    @classmethod
    def from_history(cls, history, best_epoch=None, *, ax=None, **options):
        """Draw any losses.

        Parameters
        ----------
        history : DataFrame, or mapping of str to sequence of float
            A column for each loss and a row for each epoch; counted from 1 if it has no index.
        best_epoch : int, optional
        ax : matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        TrainingDisplay

        Examples
        --------
        >>> from statespace.plotting import TrainingDisplay
        >>> display = TrainingDisplay.from_history({"loss": [1.0, 0.5, 0.4]}, best_epoch=3)
        >>> display.lines_[0].get_xdata().tolist()
        [1, 2, 3]
        """
        if not isinstance(history, pd.DataFrame):
            history = pd.DataFrame(dict(history))
            history.index = pd.RangeIndex(1, len(history) + 1, name="epoch")
        return cls(history, best_epoch).plot(ax, **options)

    def plot(self, ax=None, *, log_scale="auto", line_kw=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            None makes a figure.
        log_scale : bool or "auto", default="auto"
            Of the losses. ``"auto"`` takes logarithms where all are positive and the largest is ten times the smallest.
        line_kw : dict, optional
            To ``ax.plot`` for every curve.

        Returns
        -------
        TrainingDisplay

        Raises
        ------
        ValueError
            There is no epoch to draw, or a best epoch that is not there.
        """
        losses = self.history.select_dtypes("number")
        if losses.empty:
            raise ValueError("the history has no epoch: the estimator was not trained (max_epochs=0).")
        self.ax_, self.figure_ = one_axis(ax)
        epochs = losses.index.to_numpy()
        # A single epoch is a point.
        style = {"marker": "." if len(losses) == 1 else None} | (line_kw or {})
        self.lines_ = []
        for name in losses:
            self.lines_ += self.ax_.plot(epochs, losses[name], **({"label": str(name).replace("_", " ")} | style))
        values = losses.to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        if log_scale == "auto":
            log_scale = len(values) > 0 and bool(values.min() > 0) and bool(values.max() >= 10 * values.min())
        if log_scale:
            self.ax_.set_yscale("log")
        # Epoch 0 are the weights before training.
        if self.best_epoch:
            if self.best_epoch not in losses.index:
                raise ValueError(f"best_epoch={self.best_epoch!r} is not among the epochs of the history.")
            self.lines_.append(
                self.ax_.axvline(self.best_epoch, color="black", linestyle=":", linewidth=0.8, label="weights kept")
            )
        self.ax_.set(xlabel=losses.index.name or "epoch", ylabel="loss")
        self.ax_.legend()
        return self
