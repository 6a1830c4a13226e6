"""Ctrl-C at any moment: it ends training, and never cuts through the putting back of the best weights."""

import signal
import threading


class Interruption:
    """A context in which Ctrl-C raises ``KeyboardInterrupt`` until it is `closed`, and is only counted from then on.

    A second one is raised when the context ends, so that what has to be whole is made whole first. A handler of the
    user's own is left as it is, and outside the main thread, which alone receives signals, there is nothing to do.

    Attributes
    ----------
    open : bool
        Set it to True where ``KeyboardInterrupt`` is caught. Before, Ctrl-C does what it does without this context.
    closed : bool
        Set it to True when there is nothing left to interrupt: the first Ctrl-C is then passed over.

    Examples
    --------
    >>> import signal
    >>> from statespace.training.interruption import Interruption
    >>> with Interruption() as interruption:
    ...     try:
    ...         interruption.open = True
    ...         signal.raise_signal(signal.SIGINT)
    ...     except KeyboardInterrupt:
    ...         interruption.closed = True
    ...         print("training ends")
    training ends
    """

    def __init__(self):
        self.open = self.closed = False
        self._n_presses = 0

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind, error, traceback):
        self._remove()
        if self._n_presses > 1 and kind is None:
            raise KeyboardInterrupt

    def _handle(self, number, frame):
        self._n_presses += 1
        if not self.open:
            self._remove()
        if not self.closed:
            raise KeyboardInterrupt

    def _remove(self):
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)
