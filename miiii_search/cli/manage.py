"""Commands that change, delete, export or import an existing study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miiii_search.cli.options import (
    DEFAULT_STORAGE,
    DeletedStudyOption,
    ExtensionSetOption,
    ExtensionTrialsOption,
    ImportedNameOption,
    StorageOption,
    StudyOption,
    YesOption,
)
from miiii_search.cli.output import confirm, print_line, warn
from miiii_search.cli.resolve import open_storage, open_study
from miiii_search.errors import MiiiiSearchError


def pause(study_name: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Pause a study.

    Its workers save their trials, return them to the queue and wait. The wall time of the study stops.

    Examples:
        miiii-search pause --study table-1
    """
    from miiii_search.storage.hints import hint
    from miiii_search.study.pause import pause

    study = open_study(study_name, storage)
    state = "is paused now" if pause(study) else "was paused already"
    command = hint("resume", "--study", study.name, database=study.database)
    print_line(f"study `{study.name}` {state}; its workers return their trials to the queue and wait for {command}")


def resume(study_name: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Resume a paused study.

    Workers that wait for it continue by themselves.

    Examples:
        miiii-search resume --study table-1
    """
    from miiii_search.study.pause import resume

    study = open_study(study_name, storage)
    print_line(f"study `{study.name}` {'is no longer paused' if resume(study) else 'is not paused'}")


def extend(
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: ExtensionTrialsOption = None,
    settings: ExtensionSetOption = None,
) -> None:
    """Extend the budget, space or replicates of a study.

    Only new points are added to the queue. Running workers continue with them by themselves. If the study was done,
    start a worker.

    Examples:
        miiii-search extend --study table-1 --trials 128
        miiii-search extend --set 'space.learning_rate=[3e-4, 1e-4, 1e-3]'
        miiii-search extend --set replicates.count=3 --set replicates.top=5
    """
    from miiii_search.study.extend import extend

    changes = [*(settings or []), *([f"budget.trials={trials}"] if trials else [])]
    if not changes:
        raise MiiiiSearchError(
            "extend needs at least one change, but none was given; add --trials N for a larger budget, "
            "or --set 'space.NAME=[OLD AND NEW VALUES]' for a larger space"
        )
    study = open_study(study_name, storage)
    result = extend(study, changes)
    what = f"{result.queued} new trials are in the queue" if result.changed else "it already has all of this"
    at_most = " at most: the coordinator queues further seeds once all first runs have ended"
    print_line(f"study `{study.name}`: {what}, {result.n_trials} in all{at_most * study.awaits_selection}")


def delete(
    study_name: DeletedStudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    yes: YesOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Delete the study even while workers train its trials.")
    ] = False,
) -> None:
    """Delete a study with its trials, artifacts and checkpoints.

    The command asks for confirmation.

    Examples:
        miiii-search delete --study demo
    """
    from miiii_search.cli.views.studies import describe_contents
    from miiii_search.study.delete import delete, read_contents

    if study_name is None:
        raise MiiiiSearchError(
            "delete needs the name of a study, but --study was not given; "
            "add --study NAME, one of those that miiii-search list shows"
        )
    study = open_study(study_name, storage)
    print_line(f"study `{study.name}` in {study.database}: {describe_contents(read_contents(study))}")
    confirm("Delete it permanently?", yes)
    delete(study, force=force)
    print_line(f"study `{study.name}` is deleted")


def cleanup(
    keep_records: Annotated[int, typer.Option(help="Number of best trials whose records and figures are kept.", min=0)],
    snapshots: Annotated[
        Path | None, typer.Option(help="Folder of `work --snapshots`; weights of other trials are removed from it.")
    ] = None,
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    yes: YesOption = False,
) -> None:
    """Remove records and figures of all but the best trials.

    Trials that have not ended are left alone. Metrics, reports and notes are kept. The command asks for confirmation.

    Examples:
        miiii-search cleanup --keep-records 20 --study table-1
    """
    from miiii_search.cli.views.formatting import format_megabytes
    from miiii_search.study.cleanup import cleanup, old_snapshots, remove_snapshots

    study = open_study(study_name, storage)
    found = cleanup(study, keep_records, dry_run=True)
    found_size = format_megabytes(found.size)
    print_line(f"study `{study.name}`: {found.artifacts:,} artifacts of {found.trials:,} trials, {found_size}")
    weights = old_snapshots(study, snapshots, keep_records) if snapshots else []
    weights_size = sum(path.stat().st_size for path in weights)
    if snapshots:
        print_line(f"{snapshots}: {len(weights):,} snapshots, {format_megabytes(weights_size)}")
    if found.artifacts or weights:
        confirm("Remove them permanently?", yes)
        remove_snapshots(weights)
        print_line(f"removed {format_megabytes(cleanup(study, keep_records).size + weights_size)}")


def export_study(
    file: Annotated[Path, typer.Argument(help="File to write. An existing file is replaced.")],
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Export a whole study to one file.

    The file holds trials, reports, notes, artifacts, checkpoints and the part of the budget that is used.

    Examples:
        miiii-search export-study table-1.zip --study table-1
    """
    from miiii_search.cli.views.formatting import format_megabytes
    from miiii_search.study.archive_export import export_study

    study = open_study(study_name, storage)
    exported = export_study(study, file)
    print_line(f"study `{study.name}` is in {file}: {format_megabytes(exported.size)}")
    if count := len(exported.missing):
        warn(
            f"{count} artifact{'s' * (count != 1)} of its trials {'are' if count != 1 else 'is'} missing from "
            f"{study.artifact_store_url or 'the database'}, and therefore also from {file}"
        )


def import_study(
    file: Annotated[Path, typer.Argument(help="File that `export-study` wrote.")],
    new_name: ImportedNameOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Import a study from a file that `export-study` wrote.

    The storage may be of another kind than the original one. Workers continue where the study was exported.

    Examples:
        miiii-search import-study table-1.zip
        miiii-search import-study table-1.zip --study table-1-again
    """
    from miiii_search.study.archive_import import import_study

    database = open_storage(storage, create=True)
    study = import_study(database, file, new_name)
    print_line(f"study `{study.name}` is in {database}: {sum(study.counts().values())} trials")
