"""All commands, in the order in which `--help` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from miiii_search.capabilities import FIGURES, TRAINING, requires
from miiii_search.cli import analyse, deploy, manage, results, run, watch

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hyperparameter search for networks that grok families of modular tasks.\n\n"
    "Example: miiii-search up --preset demo",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from miiii_search.training.version import TRAINING_PROGRAM

        print(f"miiii-search {version('miiii-search')}, training program {TRAINING_PROGRAM}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit")
    ] = False,
) -> None:
    """Options of the program as a whole."""


app.command()(requires(TRAINING, run.up))
app.command()(run.create)
app.command()(run.coordinate)
app.command()(requires(TRAINING, run.work))
app.command()(watch.status)
app.command()(watch.watch)
app.command()(requires(FIGURES, analyse.simulate))
app.command("list")(watch.list_)
app.command()(manage.pause)
app.command()(manage.resume)
app.command()(manage.extend)
app.command()(manage.delete)
app.command()(manage.cleanup)
app.command()(manage.export_study)
app.command()(manage.import_study)
app.command()(results.best)
app.command()(requires(TRAINING, results.train))
app.command()(requires(FIGURES, analyse.analyze))
app.command()(requires(FIGURES, analyse.compare))
app.command()(requires(FIGURES, results.export_weights))
app.command()(watch.dashboard)
app.command(hidden=True)(deploy.make_keys)
app.command(hidden=True)(deploy.check_settings)
app.command()(deploy.invite)
app.command()(deploy.doctor)
