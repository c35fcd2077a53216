"""The generated pages, by the names of their files."""

from __future__ import annotations

from collections.abc import Callable

from website.reference.command_line import command_line
from website.reference.configuration import configuration
from website.reference.markdown import ROOT
from website.reference.operation import environment_variables, exit_codes_page, metrics
from website.reference.presets import presets
from website.reference.python_api import python_api
from website.reference.stored import stored

FOLDER = ROOT / "docs" / "reference"

PAGES: dict[str, Callable[[], str]] = {
    "command-line.md": command_line,
    "configuration.md": configuration,
    "python.md": python_api,
    "presets.md": presets,
    "files-and-tables.md": stored,
    "metrics.md": metrics,
    "exit-codes.md": exit_codes_page,
    "environment.md": environment_variables,
}
