"""The command line, `miiii-search`. Each panel of `miiii-search --help` is a module here that holds its commands.

`run`, `watch`, `manage`, `results`, `analyze` and `deploy` hold the commands, and `commands` lists all of them.
`options` holds the options that several commands share, and `views` what the commands print.
"""

from miiii_search.cli.commands import app
from miiii_search.cli.entry_point import main

__all__ = ["app", "main"]
