"""Ctrl-C at any moment: it ends training, and never cuts through the putting back of the best weights."""

import signal
import threading


class Interruption:
    """A context in which the first Ctrl-C raises ``KeyboardInterrupt``, if it is not `closed` by then.

    A second one waits until the context ends, so that what has to be whole is made whole first. A handler of the user's
    own is left as it is, and outside the main thread, which alone receives signals, there is nothing to do.

    Attributes
    ----------
    closed : bool
        Set it to True when there is nothing left to interrupt: the first Ctrl-C is then passed over.

    Examples
    --------
    >>> import signal
    >>> from statespace.training.interruption import Interruption
    >>> with Interruption() as interruption:
    ...     try:
    ...         signal.raise_signal(signal.SIGINT)
    ...     except KeyboardInterrupt:
    ...         print("training ends")
    training ends
    """

    def __init__(self):
        self.closed = False
        self._n_presses = 0
        self._previous = None

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind, error, traceback):
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if self._n_presses > 1 and kind is None:
            raise KeyboardInterrupt

    def _handle(self, number, frame):
        self._n_presses += 1
        if not self.closed:
            self.closed = True
            raise KeyboardInterrupt
