"""What botocore logs, at the level DEBUG, of requests that are ours: tokens, keys and signatures.

Its loggers belong to whoever uses it, so they stay as they are for everybody else.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ours: ContextVar[bool] = ContextVar("_ours", default=False)


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG or not _ours.get()


_quiet = _Quiet()


def quieten() -> None:
    """Put the filter before the loggers of botocore that there are; a second time is no more."""
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("botocore", "aiobotocore"):
            logging.getLogger(name).addFilter(_quiet)


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be logged of what happens within, in this task and what it starts."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
