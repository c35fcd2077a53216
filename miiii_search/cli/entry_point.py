"""The entry point of the program: how errors are shown, and which exit codes there are."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, NoReturn

import typer

from miiii_search.cli import exit_codes, streams
from miiii_search.cli.commands import app
from miiii_search.cli.console_logging import logging_to_console
from miiii_search.cli.environment_variables import unknown_settings
from miiii_search.cli.output import remember_removed_variables, warn
from miiii_search.cli.resolve import open_databases
from miiii_search.cli.system_errors import explain
from miiii_search.environment import clean_variables
from miiii_search.errors import MiiiiSearchError
from miiii_search.redaction import hide_passwords
from miiii_search.training.jax_environment import remove_unsafe_variables


@streams.GuardedStreams()
def main() -> None:
    """Run the command that was typed, and exit.

    The codes are in `exit_codes`. Mistakes of the user and errors of the system are one line on standard error.
    """
    _override_matplotlib_settings()
    remember_removed_variables(remove_unsafe_variables())
    for warning in unknown_settings():
        warn(warning)
    try:
        with logging_to_console(), open_databases:
            clean_variables()
            code: Any = app(standalone_mode=False)
    except MiiiiSearchError as error:
        _exit_with_mistake(str(error))
    except typer._click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        sys.exit(exit_codes.MISTAKE)
    except typer._click.exceptions.UsageError as error:
        command = f"miiii-search {error.ctx.info_name}" if error.ctx and error.ctx.parent else "miiii-search"
        _exit_with_mistake(f"{hide_passwords(error.format_message()).rstrip('.')}; see {command} --help")
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(exit_codes.STOPPED)
    except Exception as error:
        if not (line := explain(error)):
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(exit_codes.FAILURE)
    sys.exit(code if isinstance(code, int) else exit_codes.SUCCESS)


def _override_matplotlib_settings() -> None:
    """Ignore matplotlib settings that the user has made for other figures. They are read when it is imported."""
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull
    # Warnings about fonts, or a cache that cannot be written, are irrelevant here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _exit_with_mistake(message: str) -> NoReturn:
    # Lines are joined, but spaces within a line are kept: they may be part of a command to copy.
    print(f"error: {' '.join(line.strip() for line in message.splitlines())}", file=sys.stderr)
    sys.exit(exit_codes.MISTAKE)
