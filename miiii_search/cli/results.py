"""Commands for what a search ends with: the best configuration, and one run of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miiii_search.cli.opening import open_study
from miiii_search.cli.options import DEFAULT_STORAGE, PresetOption, SetOption, StorageOption, StudyOption
from miiii_search.cli.talking import say
from miiii_search.errors import UserError


def best(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    out: Annotated[Path | None, typer.Option(help="Where to write it; unset: standard output")] = None,
    format: Annotated[str, typer.Option(help="toml or json")] = "",
) -> None:
    """Export the best trial as a file that `train` runs, with its metrics and its provenance.

    Example: miiii-search best --study demo --out best.toml
    """
    from miiii_search.search.export import export_best

    chosen = format or ("json" if out and out.suffix == ".json" else "toml")
    if chosen not in ("toml", "json"):
        raise UserError(f"--format must be toml or json, but is `{chosen}`")
    exported = export_best(open_study(study, storage))
    text = exported.to_json() if chosen == "json" else exported.to_toml()
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    say(f"trial {exported.provenance['trial']} of study `{exported.provenance['study']}` is in {out}")


def train(
    file: Annotated[Path | None, typer.Argument(help="A configuration that `best` wrote")] = None,
    preset: PresetOption = None,
    config: Annotated[str | None, typer.Option(help="A named configuration of the preset, such as paper-best")] = None,
    out: Annotated[Path, typer.Option(help="The folder for metrics, weights and curves")] = Path("runs/latest"),
    settings: SetOption = None,
) -> None:
    """Train one configuration: a file's, or a preset's. Says whether it repeats what the file recorded.

    Example: miiii-search train --preset paper --config paper-best --out runs/table-2
    """
    from miiii_search.terminal.retrain import choose, retrain

    chosen = choose(file, preset, config, settings or [])
    retrain(chosen, out, compare_with_recorded=not settings)
