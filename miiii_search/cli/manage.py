"""Commands for a study that is there: pause it, extend it, delete it, move it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miiii_search.cli.options import DEFAULT_STORAGE, StorageOption, StudyOption
from miiii_search.cli.output import ask, say, warn
from miiii_search.cli.resolve import open_storage, open_study
from miiii_search.errors import MiiiiSearchError


def pause(study: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Pause a study: its workers save their trials, hand them back and wait; its wall time stands still.

    Example: miiii-search pause --study table-1
    """
    from miiii_search.study.hints import hint
    from miiii_search.study.pause import pause

    opened = open_study(study, storage)
    was = "is paused now" if pause(opened) else "is paused already"
    again = hint("resume", "--study", opened.name, database=opened.database)
    say(f"study `{opened.name}` {was}; its workers hand back what they train and wait for {again}")


def resume(study: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Let a paused study go on; workers that wait notice by themselves.

    Example: miiii-search resume --study table-1
    """
    from miiii_search.study.pause import resume

    opened = open_study(study, storage)
    say(f"study `{opened.name}` {'is no longer paused' if resume(opened) else 'is not paused'}")


def extend(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: Annotated[int | None, typer.Option(help="The new budget: so many trials in all", min=1)] = None,
    # Not from MIIII_SET, which is what a study is created with.
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of the spec; may be repeated")
    ] = None,
) -> None:
    """Add trials to a study: a larger budget, a larger space, more replicates. Only new points are queued.

    Workers that run see it by themselves; a study that was done goes on once a worker is started.

    Example: miiii-search extend --study table-1 --set 'space.learning_rate=[3e-4, 1e-4, 1e-3]'

    Example: miiii-search extend --study table-1 --set replicates.count=3 --set replicates.top=5
    """
    from miiii_search.study.extend import extend

    wanted = [*(settings or []), *([f"budget.trials={trials}"] if trials else [])]
    if not wanted:
        raise MiiiiSearchError("extend by what? give --trials N, or --set 'space.NAME=[old values and new ones]'")
    opened = open_study(study, storage)
    done = extend(opened, wanted)
    what = f"{done.queued} trials are new in the queue" if done.changed else "has all this already"
    at_most = " at most: the coordinator queues further seeds once all first runs have ended"
    say(f"study `{opened.name}`: {what}, {done.n_trials} in all{at_most * opened.awaits_selection}")


def delete(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even while workers train trials of it")] = False,
) -> None:
    """Delete a study with its trials, artifacts and checkpoints. Asks first.

    Example: miiii-search delete --study demo
    """
    from miiii_search.cli.views.studies import describe_contents
    from miiii_search.study.delete import delete, read_contents

    if study is None:
        raise MiiiiSearchError("which study? name it with --study; miiii-search list shows those that there are")
    opened = open_study(study, storage)
    say(f"study `{opened.name}` in {opened.database}: {describe_contents(read_contents(opened))}")
    ask("Delete it for good?", yes)
    delete(opened, force=force)
    say(f"study `{opened.name}` is deleted")


def cleanup(
    keep_records: Annotated[
        int, typer.Option(help="Of how many of the best trials records and figures are kept", min=0)
    ],
    snapshots: Annotated[
        Path | None, typer.Option(help="The folder of `work --snapshots`, to keep weights of the same trials alone")
    ] = None,
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """Remove the records and figures of all ended trials but the best. Metrics, reports and notes stay. Asks first.

    Example: miiii-search cleanup --keep-records 20 --study table-1
    """
    from miiii_search.cli.views.formatting import format_megabytes
    from miiii_search.study.cleanup import cleanup, old_snapshots, remove_snapshots

    opened = open_study(study, storage)
    found = cleanup(opened, keep_records, dry_run=True)
    size_found = format_megabytes(found.size)
    say(f"study `{opened.name}`: {found.artifacts:,} artifacts of {found.trials:,} trials, {size_found}")
    weights = old_snapshots(opened, snapshots, keep_records) if snapshots else []
    size = sum(path.stat().st_size for path in weights)
    if snapshots:
        say(f"{snapshots}: {len(weights):,} snapshots, {format_megabytes(size)}")
    if found.artifacts or weights:
        ask("Remove them for good?", yes)
        remove_snapshots(weights)
        say(f"removed {format_megabytes(cleanup(opened, keep_records).size + size)}")


def export_study(
    file: Annotated[Path, typer.Argument(help="The file to write; one that is there is replaced")],
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Write a whole study into one file: trials, reports, notes, artifacts, checkpoints, what it used of its budget.

    Example: miiii-search export-study table-1.zip --study table-1
    """
    from miiii_search.cli.views.formatting import format_megabytes
    from miiii_search.study.archive_export import export_study

    opened = open_study(study, storage)
    exported = export_study(opened, file)
    say(f"study `{opened.name}` is in {file}: {format_megabytes(exported.size)}")
    if count := len(exported.missing):
        warn(
            f"{count} artifact{'s' * (count != 1)} of its trials {'are' if count != 1 else 'is'} not in "
            f"{opened.artifact_store_url or 'the database'} any more, and so not in {file}"
        )


def import_study(
    file: Annotated[Path, typer.Argument(help="A file that `export-study` wrote")],
    study: Annotated[str | None, typer.Option(help="Another name for the study than the file's")] = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Add the study in a file to a storage of any kind; its workers go on where it was.

    Example: miiii-search import-study table-1.zip --storage postgresql://me:secret@db/miiii
    """
    from miiii_search.study.archive_import import import_study

    database = open_storage(storage, create=True)
    opened = import_study(database, file, study)
    say(f"study `{opened.name}` is in {database}: {sum(opened.counts().values())} trials")
