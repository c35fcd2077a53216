"""The logging handler that prints the progress of workers and coordinators as lines of the command."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from miiii_search.cli.output import print_line


class LineHandler(logging.Handler):
    """A logging handler that prints each message as a line of the command.

    Messages are printed to standard output by Rich, without colors if it is not a terminal. Errors are printed to
    standard error. A message that cannot be written does not stop the work.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        try:
            line = self.format(record)
            if record.levelno >= logging.ERROR:
                print(line, file=sys.stderr)
            else:
                print_line(line)
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def logging_to_console() -> Iterator[None]:
    """Print what this package logs, from the level INFO on, until the context ends."""
    logger, handler = logging.getLogger("miiii_search"), LineHandler()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a handler of the root logger would print every line twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
