"""The command line prints what the library logs."""

from __future__ import annotations

import logging

import pytest

from miiii_search.cli.console_logging import logging_to_console

logger = logging.getLogger("miiii_search.worker")


def test_messages_are_lines_and_errors_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_console():
        logger.debug("a detail")
        logger.info("Trial 3 of `a [b]` starts :smile:", extra={"trial": 3})
        logger.warning("the database does not answer")
        logger.error("the storage is down")
    printed = capsys.readouterr()
    assert printed.out == "Trial 3 of `a [b]` starts :smile:\nthe database does not answer\n"
    assert printed.err == "the storage is down\n"


def test_nothing_is_left_behind() -> None:
    package = logging.getLogger("miiii_search")
    before = (package.level, package.propagate, list(package.handlers))
    with logging_to_console():
        assert package.handlers != before[2]
    assert (package.level, package.propagate, package.handlers) == before
