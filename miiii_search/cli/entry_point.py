"""The entry point: what a mistake looks like, and which exit codes there are."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import typer

from miiii_search.cli import streams
from miiii_search.cli.commands import app
from miiii_search.cli.environment_variables import unknown_settings
from miiii_search.cli.output import logging_to_console, say_later
from miiii_search.cli.resolve import to_close
from miiii_search.cli.system_errors import explain
from miiii_search.environment import clean_variables
from miiii_search.errors import MiiiiSearchError
from miiii_search.redaction import hide_passwords
from miiii_search.training.jax_environment import remove_unsafe_variables


@streams.guarded()
def main() -> None:
    """The entry point: a mistake of the user's is one line on standard error and exit code 2."""
    _ignore_matplotlib_settings()
    say_later(remove_unsafe_variables())
    for unknown in unknown_settings():
        print(f"warning: {unknown}", file=sys.stderr)
    try:
        with logging_to_console(), to_close:
            clean_variables()
            code: Any = app(standalone_mode=False)
    except MiiiiSearchError as error:
        _fail(str(error))
    except typer._click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        sys.exit(2)
    except typer._click.exceptions.UsageError as error:
        command = f"miiii-search {error.ctx.info_name}" if error.ctx and error.ctx.parent else "miiii-search"
        _fail(f"{hide_passwords(error.format_message()).rstrip('.')}; see {command} --help")
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if not (line := explain(error)):
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _ignore_matplotlib_settings() -> None:
    """Keeps what is meant for the user's own figures from ours: matplotlib reads it when it is imported."""
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull
    # Of a cache that cannot be written, or fonts: it works without.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _fail(message: str) -> None:
    # In one line; but what a shell is to take keeps its spaces.
    print(f"error: {' '.join(line.strip() for line in message.splitlines())}", file=sys.stderr)
    sys.exit(2)
