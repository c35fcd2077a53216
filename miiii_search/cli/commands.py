"""All commands, in the order in which `--help` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from miiii_search.capabilities import FIGURES, TRAINING, needs
from miiii_search.cli import containers, keeping, looking, results, running

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


app.command()(needs(TRAINING, running.up))
app.command()(running.create)
app.command()(running.coordinate)
app.command()(needs(TRAINING, running.work))
app.command()(looking.status)
app.command()(looking.watch)
app.command()(needs(FIGURES, looking.simulate))
app.command("list")(looking.list_)
app.command()(keeping.pause)
app.command()(keeping.resume)
app.command()(keeping.extend)
app.command()(keeping.delete)
app.command()(keeping.cleanup)
app.command()(keeping.export_study)
app.command()(keeping.import_study)
app.command()(results.best)
app.command()(needs(TRAINING, results.train))
app.command()(needs(FIGURES, results.analyze))
app.command()(needs(FIGURES, results.compare))
app.command()(needs(FIGURES, results.export_weights))
app.command()(looking.dashboard)
app.command(hidden=True)(containers.make_keys)
app.command(hidden=True)(containers.check_settings)
app.command()(containers.invite)
app.command()(looking.doctor)
