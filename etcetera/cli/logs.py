"""What the package logs, on the standard error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etcetera.cli.output import tell, to_json

if TYPE_CHECKING:
    from etcetera.cli.options import Options


class _Handler(logging.Handler):
    """Prints through the one place that makes text harmless."""

    def __init__(self, options: "Options") -> None:
        super().__init__(logging.DEBUG if options.verbose else logging.WARNING)
        self._options = options

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        level, message = record.levelname.lower(), record.getMessage()
        tell(to_json({level: message}) if self._options.json else f"etc: {level}: {message}")


def show_logs(options: "Options") -> None:
    """Have warnings shown, and details if they were asked for."""
    logger = logging.getLogger("etcetera")
    logger.handlers = [_Handler(options)]
    logger.propagate = False
    if options.verbose:
        logger.setLevel(logging.DEBUG)


@contextmanager
def not_twice() -> Iterator[None]:
    """Let nothing be logged that ``etc doctor`` says itself."""

    def is_new(record: logging.LogRecord) -> bool:
        return not hasattr(record, "is_found")

    logger = logging.getLogger("etcetera")
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)
