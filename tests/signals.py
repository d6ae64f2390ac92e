"""What processes that tests start do about signals."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def inherited(handlers: dict[signal.Signals, signal.Handlers]) -> Iterator[None]:
    """Have processes started meanwhile ignore a signal, or not.

    A shell that starts the tests in the background has them ignore SIGINT.
    """
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
