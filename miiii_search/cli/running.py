"""Commands that make a study and train it."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miiii_search.cli import processes
from miiii_search.cli.opening import installation_keys, open_or_create, open_storage, to_close, wanted_spec
from miiii_search.cli.options import (
    DEFAULT_STORAGE,
    AccessOption,
    ArtifactsOption,
    CheckpointsOption,
    KeysOption,
    LanesOption,
    MetricsHostOption,
    MetricsPortOption,
    PortOption,
    PresetOption,
    PulseOption,
    SetOption,
    SnapshotsOption,
    SpecOption,
    StayOption,
    StorageOption,
    StudyOption,
    TrialsOption,
    WithParent,
)
from miiii_search.cli.talking import say, write
from miiii_search.environment import state_folder
from miiii_search.errors import StudyDeletedError, UserError
from miiii_search.files import check_writable, file_name, write_file
from miiii_search.terminal import streams

if TYPE_CHECKING:
    from miiii_search.search.study import Study


def up(
    preset: PresetOption = None,
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: TrialsOption = None,
    artifacts: ArtifactsOption = None,
    settings: SetOption = None,
    spec: SpecOption = None,
    lanes: LanesOption = "auto",
    port: PortOption = 8080,
    dashboard: Annotated[bool, typer.Option(help="Show the study in optuna-dashboard meanwhile")] = True,
) -> None:
    """Run a study on this box to its end: coordinator, one worker and the dashboard.

    Ctrl-C stops cleanly; the same command continues.

    Example: miiii-search up --preset demo --set experiment.p=23

    Example: miiii-search up --preset demo --set 'replicates={count=3, top=4}'
    """
    from miiii_search.search.box import Child, WorkerDied, run_study
    from miiii_search.search.export import export_best
    from miiii_search.search.status import best_trial, read_status
    from miiii_search.terminal.display import command_name, console, ranking, standings_table
    from miiii_search.terminal.live import live

    n_lanes = parse_lanes(lanes)
    opened = open_or_create(study, storage, preset, spec, settings, trials, artifacts)
    path = Path(file_name(opened.name, "-best.toml"))
    try:
        check_writable(path)
    except OSError as error:
        raise UserError(
            f"cannot write the result, {path}, to this folder: {error.strerror}; run the command in another one"
        ) from None
    stop = processes.stop_on_signals()
    arguments = ["dashboard", "--port", str(port)]
    page = Child(storage, arguments, say) if dashboard else nullcontext()
    try:
        with page, live(opened) as refresh:
            done = run_study(opened, storage, lanes=n_lanes, stop=stop, say=say, on_poll=refresh)
    except WorkerDied as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if not done:
        say("stopped; the same command continues")
        return
    console.print(ranking(opened))
    if found := read_status(opened).standings:
        console.print(standings_table(found))
    if best_trial(opened.trials()) is None:
        raise UserError(f"no trial of study `{opened.name}` was completed, so there is nothing to export")
    known = storage == DEFAULT_STORAGE or "MIIII_STORAGE" in os.environ
    suffix = "" if known else f" --storage '{opened.database}'"
    try:
        write_file(path, export_best(opened).to_toml())
    except OSError as error:
        raise UserError(
            f"the study is done, but cannot write {path}: {error.strerror}; write its best configuration elsewhere: "
            f"{command_name()} best --study {shlex.quote(opened.name)}{suffix} --out FILE"
        ) from None
    console.print(f"\nThe best configuration is in {path}. Next:")
    console.print(f"  {command_name()} dashboard{suffix}", soft_wrap=True)
    console.print(f"  {command_name()} train {shlex.quote(str(path))} --out runs/best", soft_wrap=True)
    console.print(f"  {command_name()} analyze runs/best", soft_wrap=True)


def create(
    study: StudyOption = None,
    preset: PresetOption = None,
    spec: SpecOption = None,
    settings: SetOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: TrialsOption = None,
    artifacts: ArtifactsOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the spec, as a file that --spec takes")
    ] = False,
) -> None:
    """Create a study and its queue. The second time, with the same spec, this does nothing.

    Example: miiii-search create --study table-1 --preset paper --set experiment.epochs=4096
    """
    if dry_run:
        import tomli_w

        from miiii_search.search.settings import to_tree

        write(tomli_w.dumps(to_tree(wanted_spec(preset, spec, settings, trials))))
        return
    open_or_create(study, storage, preset, spec, settings, trials, artifacts)


def coordinate(
    study: StudyOption = None,
    preset: PresetOption = None,
    spec: SpecOption = None,
    settings: SetOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: TrialsOption = None,
    artifacts: ArtifactsOption = None,
    keep: Annotated[bool, typer.Option(help="Take a study that exists as it is, whatever the options say")] = False,
    stay: StayOption = False,
    pulse: PulseOption = None,
    keys: KeysOption = None,
    access: AccessOption = None,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
) -> None:
    """Create a study if there is none, then supervise it until it is done.

    Overdue trials of the storage's other studies go back to their queues, too. A study that was deleted is not
    created again: with --stay the coordinator waits until `create` or `up` does so, without --stay it ends.

    Example: miiii-search coordinate --study table-1 --storage postgresql://me:secret@db/miiii
    """
    from miiii_search.search import monitoring
    from miiii_search.search.coordinator import supervise, unfinished_others, wait_for_more, wait_for_study
    from miiii_search.search.deleted import remember_if_missing
    from miiii_search.service.pulse import Pulse

    stop, beat = processes.stop_on_signals(), Pulse(pulse)
    name = study or wanted_spec(preset, spec, settings, trials).preset or (spec.stem if spec else "study")
    database = open_storage(storage, create=True)
    if keys and access:
        from miiii_search.service.roles import let_workers_in

        let_workers_in(database, installation_keys(keys, access))
    supervision = monitoring.Supervision()

    def coordinate_once(opened: Study) -> None:
        for line in unfinished_others(opened):
            say(line)
        while True:
            done = supervise(opened, stop, say, beat, observe=supervision.observe)
            say(f"study `{opened.name}` is done" if done else "stopped; the same command continues")
            if not (done and stay and wait_for_more(opened, stop, say, beat, supervision.observe)):
                return

    with monitoring.serve(supervision.metrics, metrics_host, metrics_port, say):
        while not stop.is_set():
            try:
                opened = open_or_create(study, storage, preset, spec, settings, trials, artifacts, keep, again=False)
                coordinate_once(opened)
                return
            except StudyDeletedError:
                # By another program, perhaps, such as Optuna's dashboard.
                remember_if_missing(database, name)
                if not stay:
                    raise
            wait_for_study(database, name, stop, say, beat)


def work(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    lanes: LanesOption = "auto",
    snapshots: SnapshotsOption = None,
    checkpoints: CheckpointsOption = None,
    checkpoint_every: Annotated[float, typer.Option(min=0.1, help="Seconds between two files of a trial")] = 60,
    share_every: Annotated[float, typer.Option(min=0.1, help="Seconds between two copies in the database")] = 600,
    grace: Annotated[float, typer.Option(min=1, help="Seconds that saving may take once told to stop")] = 10,
    any_version: Annotated[bool, typer.Option(help="Train a study of another version of miiii-search")] = False,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", envvar="MIIII_DEVICE", help="cuda: refuse to train without a GPU")
    ] = "auto",
    stay: StayOption = False,
    pulse: PulseOption = None,
    stopped_code: Annotated[
        int, typer.Option(min=0, max=255, help="Exit code once told to stop, for a scheduler that is to start another")
    ] = 0,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    with_parent: WithParent = False,
) -> None:
    """Train trials of a study until none is left. Any number of workers may do so, on any machine.

    Told to stop (Ctrl-C, SIGTERM, a closed terminal), it saves its trials and hands them back; whoever claims one
    goes on from there. A second Ctrl-C or SIGTERM ends it at once.

    Example: MIIII_STORAGE=postgresql://me:secret@db/miiii miiii-search work --study table-1
    """
    from miiii_search.search import study as studies

    n_lanes = parse_lanes(lanes)
    folder = checkpoints or state_folder() / "checkpoints"
    stop = processes.stop_on_signals()
    if with_parent:
        processes.at_parents_end(stop.set)
    database = open_storage(storage)
    opened = None if stay else studies.open_study(database, study)
    from miiii_search.experiment.device import choose_device, describe_device, use_compilation_cache
    from miiii_search.search import monitoring
    from miiii_search.search.checkpoints import Policy
    from miiii_search.search.coordinator import wait_for_more, wait_for_study
    from miiii_search.search.worker import Worker
    from miiii_search.service.pulse import Pulse

    choose_device(device)
    use_compilation_cache()
    say(f"worker on {describe_device()}, lanes: {lanes}")
    policy = Policy(folder, checkpoint_every, share_every)
    beat, tally = Pulse(pulse), monitoring.Tally()

    worker: Worker | None = None

    def begin(opened: Study) -> Worker:
        nonlocal worker
        worker = Worker(
            opened,
            n_lanes,
            say,
            snapshots,
            checkpoints=policy,
            any_version=any_version,
            grace_seconds=grace,
            on_turn=beat,
            tally=tally,
        )
        return worker

    def train(opened: Study) -> None:
        begin(opened).run(stop)
        while stay and not stop.is_set():
            say(f"study `{opened.name}` is done; waiting for more")
            if wait_for_more(opened, stop, say, beat):
                begin(opened).run(stop)

    with monitoring.serve(lambda: worker.metrics() if worker else [], metrics_host, metrics_port, say):
        while not stop.is_set():
            opened = opened or wait_for_study(database, study, stop, say, beat)
            if opened is None:
                break
            try:
                train(opened)
                break
            except StudyDeletedError as error:
                if not stay:
                    raise
                say(str(error))
                opened = None
    if stop.is_set():
        # Compiling cannot be interrupted, and the interpreter would wait for its thread.
        to_close.close()
        streams.flush()
        os._exit(stopped_code)


def parse_lanes(lanes: str) -> int | None:
    """A number of lanes, or None for as many as train fastest. Raises `UserError`."""
    if lanes == "auto":
        return None
    if not lanes.isdecimal() or int(lanes) < 1:
        raise UserError(f"--lanes must be a number of at least 1, or auto, but is `{lanes}`")
    return int(lanes)
