"""All commands, in the order in which `--help` lists them."""

from __future__ import annotations

import typer

from miiii_search.cli import containers, keeping, looking, results, running

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hyperparameter search for networks that grok families of modular tasks.\n\n"
    "Example: miiii-search up --preset demo",
)

app.command()(running.up)
app.command()(running.create)
app.command()(running.coordinate)
app.command()(running.work)
app.command()(looking.status)
app.command()(looking.watch)
app.command()(looking.simulate)
app.command("list")(looking.list_)
app.command()(keeping.pause)
app.command()(keeping.resume)
app.command()(keeping.extend)
app.command()(keeping.delete)
app.command()(keeping.tidy)
app.command()(keeping.export_study)
app.command()(keeping.import_study)
app.command()(results.best)
app.command()(results.train)
app.command()(results.analyze)
app.command()(results.compare)
app.command()(results.export_weights)
app.command()(looking.dashboard)
app.command(hidden=True)(containers.make_keys)
app.command(hidden=True)(containers.check_settings)
app.command()(containers.invite)
app.command()(looking.doctor)
