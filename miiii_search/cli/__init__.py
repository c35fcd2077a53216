"""The command line. `commands` lists all commands and names the file of each."""

from miiii_search.cli.commands import app
from miiii_search.cli.entry_point import main

__all__ = ["app", "main"]
