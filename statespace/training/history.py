"""What happened in training, and the error that ends it."""

from dataclasses import dataclass, field


class DivergenceError(ArithmeticError):
    """The loss became infinite or NaN. The model holds the best weights up to then."""


@dataclass
class History:
    """What happened in training, epoch by epoch.

    Attributes
    ----------
    loss, validation_loss : list of float
        Mean loss of every epoch; ``validation_loss`` is empty without validation data.
    best_epoch : int
        The epoch (from 0) whose weights were kept; -1: those before the first epoch.
    stopped : {"max_epochs", "early", "callback", "interrupted", "diverged", "memory"}
        Why training ended.

    Examples
    --------
    >>> from statespace.training import History
    >>> History(loss=[1.0, 0.5], best_epoch=1).stopped
    'max_epochs'
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = -1
    stopped: str = "max_epochs"
