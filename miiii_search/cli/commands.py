"""All commands, in the panels and in the order in which `--help` lists them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from miiii_search.capabilities import FIGURES, TRAINING, requires
from miiii_search.cli import analyze, deploy, manage, plan, results, run, watch
from miiii_search.cli.help import PanelGroup, with_examples

app = typer.Typer(
    cls=PanelGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=with_examples(
        "Hyperparameter search for networks that grok families of modular tasks.\n\n"
        "Examples:\n    miiii-search up --preset demo\n    miiii-search up --help"
    ),
)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        from miiii_search.training.version import TRAINING_PROGRAM

        print(f"miiii-search {version('miiii-search')}, training program {TRAINING_PROGRAM}")
        raise typer.Exit


@app.callback()
def global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Define the options that precede the name of a command."""


def _add(
    panel: str,
    command: Callable[..., None],
    *,
    needs: tuple[str, ...] = (),
    name: str | None = None,
    hidden: bool = False,
) -> None:
    """Add a command to the program.

    Args:
        panel: The panel of `--help` that lists the command.
        command: The function. Its parameters are the options, its docstring is the help.
        needs: Modules that the command refuses to run without.
        name: The command's name; by default that of the function, with hyphens.
        hidden: Whether `--help` leaves the command out.
    """
    checked = requires(needs, command) if needs else command
    app.command(name, help=with_examples(inspect.getdoc(command) or ""), rich_help_panel=panel, hidden=hidden)(checked)


_add("Run", run.up, needs=TRAINING)
_add("Run", run.create)
_add("Run", run.coordinate)
_add("Run", run.work, needs=TRAINING)
_add("Run", plan.plan)

_add("Watch", watch.status)
_add("Watch", watch.watch)
_add("Watch", watch.list_, name="list")
_add("Watch", watch.dashboard)

_add("Manage", manage.pause)
_add("Manage", manage.resume)
_add("Manage", manage.extend)
_add("Manage", manage.delete)
_add("Manage", manage.cleanup)
_add("Manage", manage.export_study)
_add("Manage", manage.import_study)

_add("Results", results.best)
_add("Results", results.export)
_add("Results", results.train, needs=TRAINING)
_add("Results", results.export_weights, needs=FIGURES)

_add("Analyze", analyze.analyze, needs=FIGURES)
_add("Analyze", analyze.compare, needs=FIGURES)
_add("Analyze", analyze.simulate, needs=FIGURES)

_add("Deploy", deploy.invite)
_add("Deploy", deploy.doctor)
_add("Deploy", deploy.make_keys, hidden=True)
_add("Deploy", deploy.check_settings, hidden=True)
