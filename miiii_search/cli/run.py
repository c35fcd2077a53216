"""Commands that make a study and train it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from miiii_search.cli import signals, streams
from miiii_search.cli.options import (
    DEFAULT_STORAGE,
    AccessOption,
    AnyVersionOption,
    ArtifactsOption,
    CheckpointsOption,
    KeepRunningOption,
    KeysOption,
    LanesOption,
    LivenessFileOption,
    MetricsHostOption,
    MetricsPortOption,
    PortOption,
    PresetOption,
    SetOption,
    SnapshotsOption,
    SpecOption,
    StorageOption,
    StudyOption,
    TrialsOption,
    WithParent,
)
from miiii_search.cli.output import say, say_ignored, write
from miiii_search.cli.resolve import (
    installation_keys,
    open_or_create,
    open_storage,
    open_study,
    to_close,
    wanted_spec,
    when_compatible,
)
from miiii_search.environment import state_folder
from miiii_search.errors import AccessRefusedError, MiiiiSearchError, StudyDeletedError, WorkerDiedError
from miiii_search.files import check_writable, file_name, write_file

if TYPE_CHECKING:
    from miiii_search.study.study import Study
    from miiii_search.worker.worker import Worker

OpenedT = TypeVar("OpenedT")

REFUSED_CODE = 77
"""Exit code of a worker that the database refuses; EX_NOPERM of sysexits.h."""

REFUSAL_SECONDS, REFUSAL_PAUSE_SECONDS = 60.0, 5.0
"""For how long, and how often, `--idle-when-refused` tries a refused login when it starts."""


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
    any_version: AnyVersionOption = False,
) -> None:
    """Run a study on this box to its end: coordinator, one worker and the dashboard.

    Ctrl-C stops cleanly; the same command continues.

    Example: miiii-search up --preset demo --set experiment.p=23

    Example: miiii-search up --preset demo --set 'replicates={count=3, top=4}'
    """
    from miiii_search.cli.views.console import console
    from miiii_search.cli.views.live import live_view
    from miiii_search.cli.views.rankings import ranking, seed_stats_table
    from miiii_search.coordinator.local import Child, run_study
    from miiii_search.study.export import export_best
    from miiii_search.study.hints import file_argument, hides_password, hint
    from miiii_search.study.status import read_status

    n_lanes = parse_lanes(lanes)
    say_ignored()
    opened = open_or_create(study, storage, preset, spec, settings, trials, artifacts, check_name=_check_result)
    path = _result_of(opened.name)
    stop = signals.stop_on_signals()
    opened.check_version(any_version)
    arguments = ["dashboard", "--port", str(port)]
    page = Child(storage, arguments, logging.getLogger("miiii_search.dashboard")) if dashboard else nullcontext()
    try:
        with page, live_view(opened) as refresh:
            done = run_study(opened, storage, lanes=n_lanes, stop=stop, on_poll=refresh)
    except WorkerDiedError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if not done:
        say("stopped; the same command continues")
        return
    console.print(ranking(opened))
    now = read_status(opened, pruned=0)
    if now.configurations:
        console.print(seed_stats_table(now.configurations))
    if now.best is None:
        raise MiiiiSearchError(f"no trial of study `{opened.name}` was completed, so there is nothing to export")
    try:
        write_file(path, export_best(opened).to_toml(path))
    except OSError as error:
        raise MiiiiSearchError(
            f"the study is done, but cannot write {path}: {error.strerror}; write its best configuration elsewhere, "
            f"with --out FILE: {hint('best', '--study', opened.name, database=opened.database)}"
        ) from None
    say(f"\nThe best configuration is in {path}. Next:")
    say(f"  {hint('dashboard', database=opened.database)}")
    say(f"  {hint('train', file_argument(path), '--out', 'runs/best')}")
    say(f"  {hint('analyze', 'runs/best')}")
    if hides_password(opened.database):
        say("where MIIII_STORAGE holds the URL of the storage, which has a password")


def _result_of(name: str) -> Path:
    """Where `up` writes the best configuration of a study."""
    return Path(file_name(name, "-best.toml"))


def _check_result(name: str) -> None:
    """Raises `MiiiiSearchError` if `up` cannot write the best configuration of a study into this folder."""
    path = _result_of(name)
    try:
        check_writable(path)
    except OSError as error:
        raise MiiiiSearchError(
            f"cannot write the result, {path}, to this folder: {error.strerror}; run the command in another one"
        ) from None


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

        from miiii_search.config.overrides import to_tree

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
    keep_running: KeepRunningOption = False,
    liveness_file: LivenessFileOption = None,
    keys: KeysOption = None,
    access: AccessOption = None,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
) -> None:
    """Create a study if there is none, then supervise it until it is done.

    Overdue trials of the storage's other studies go back to their queues, too. A study that was deleted is not
    created again: with --keep-running the coordinator waits until `create` or `up` does so;
    without it, it ends.

    Example: miiii-search coordinate --study table-1 --storage postgresql://me:secret@db/miiii
    """
    from miiii_search.coordinator.coordinator import supervise, unfinished_others, wait_for_more, wait_for_study
    from miiii_search.deployment.liveness import Liveness
    from miiii_search.metrics import prometheus
    from miiii_search.storage.deleted_studies import record_deletion_if_missing

    stop, beat = signals.stop_on_signals(), Liveness(liveness_file)
    name = study or (spec.stem if spec else wanted_spec(preset, spec, settings, trials).preset) or "study"
    if keys and access:
        from miiii_search.deployment.roles import create_local_worker

        create_local_worker(open_storage(storage, create=True), installation_keys(keys, access))
    supervision = prometheus.Supervision()

    def open_it() -> Study:
        return open_or_create(study, storage, preset, spec, settings, trials, artifacts, keep, again=False)

    def coordinate_once(opened: Study) -> None:
        for line in unfinished_others(opened):
            say(line)
        while True:
            done = supervise(opened, stop, beat, observe=supervision.observe)
            say(f"study `{opened.name}` is done" if done else "stopped; the same command continues")
            if not (done and keep_running and wait_for_more(opened, stop, beat, supervision.observe)):
                return

    with prometheus.serve(supervision.metrics, metrics_host, metrics_port):
        while not stop.is_set():
            try:
                # It supervises what others train, too, and so only has to be able to read the study.
                opened = when_compatible(open_it, lambda study: None, stop, beat) if keep_running else open_it()
                if opened is not None:
                    coordinate_once(opened)
                return
            except StudyDeletedError:
                # By another program, perhaps, such as Optuna's dashboard.
                record_deletion_if_missing(open_storage(storage), name)
                if not keep_running:
                    raise
            wait_for_study(open_storage(storage), name, stop, beat)


def work(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    lanes: LanesOption = "auto",
    snapshots: SnapshotsOption = None,
    checkpoints: CheckpointsOption = None,
    checkpoint_every: Annotated[float, typer.Option(min=0.1, help="Seconds between two files of a trial")] = 60,
    share_every: Annotated[float, typer.Option(min=0.1, help="Seconds between two copies in the database")] = 600,
    grace: Annotated[float, typer.Option(min=1, help="Seconds that saving may take once told to stop")] = 10,
    any_version: AnyVersionOption = False,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", envvar="MIIII_DEVICE", help="cuda: refuse to train without a GPU")
    ] = "auto",
    keep_running: KeepRunningOption = False,
    liveness_file: LivenessFileOption = None,
    exit_code_on_stop: Annotated[
        int, typer.Option(min=0, max=255, help="Exit code once told to stop, for a scheduler that is to start another")
    ] = 0,
    idle_when_refused: Annotated[
        bool,
        typer.Option("--idle-when-refused", help="Wait without training, for a container that would be started again"),
    ] = False,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    name: Annotated[
        str | None, typer.Option(envvar="MIIII_WORKER_NAME", help="The worker's name in the dashboard and in status")
    ] = None,
    with_parent: WithParent = False,
) -> None:
    """Train trials of a study until none is left. Any number of workers may do so, on any machine.

    Told to stop (Ctrl-C, SIGTERM, a closed terminal), it saves its trials and hands them back; whoever claims one
    goes on from there. A second Ctrl-C or SIGTERM ends it at once. If the database refuses its login for the time
    of a lease, as after invite --revoke, it ends with exit code 77.

    Example: MIIII_STORAGE=postgresql://me:secret@db/miiii miiii-search work --study table-1
    """
    from miiii_search.deployment.liveness import Liveness

    n_lanes = parse_lanes(lanes)
    folder = checkpoints or state_folder() / "checkpoints"
    stop = signals.stop_on_signals()
    if with_parent:
        signals.at_parents_end(stop.set)
    beat = Liveness(liveness_file)
    worker: Worker | None = None
    try:
        find = _study_finder(
            study, storage, stop, beat, keep_running, REFUSAL_SECONDS if idle_when_refused else 0.0, with_parent
        )
        opened = _open_to_train(find, any_version, stop if keep_running else None, beat)
        if opened is None:
            _end_at_once(exit_code_on_stop)
        from miiii_search.training.jax_environment import import_jax

        say_ignored()
        import_jax()
        from miiii_search.coordinator.coordinator import wait_for_more
        from miiii_search.metrics import prometheus
        from miiii_search.training.device import choose_device, describe_device, use_compilation_cache
        from miiii_search.worker.checkpoints import Policy
        from miiii_search.worker.worker import Worker

        choose_device(device)
        use_compilation_cache()
        say(f"worker on {describe_device()}, lanes: {lanes}")
        policy = Policy(folder, checkpoint_every, share_every)
        counters = prometheus.WorkerCounters()

        def begin(opened: Study) -> Worker:
            nonlocal worker
            worker = Worker(
                opened,
                n_lanes,
                snapshots,
                checkpoints=policy,
                any_version=any_version,
                grace_seconds=grace,
                on_turn=beat,
                counters=counters,
                name=name,
            )
            return worker

        def train(opened: Study) -> None:
            begin(opened).run(stop)
            while keep_running and not stop.is_set():
                say(f"study `{opened.name}` is done; waiting for more")
                if wait_for_more(opened, stop, beat):
                    begin(opened).run(stop)

        with prometheus.serve(lambda: worker.metrics() if worker else [], metrics_host, metrics_port):
            while opened is not None:
                try:
                    train(opened)
                    break
                except StudyDeletedError as error:
                    if not keep_running:
                        raise
                    say(str(error))
                    opened = _open_to_train(find, any_version, stop, beat)
    except AccessRefusedError as error:
        _end_refused(error, idle_when_refused and not stop.is_set())
    if stop.is_set():
        _end_at_once(exit_code_on_stop)


def _study_finder(
    study: str | None,
    storage: str,
    stop: threading.Event,
    beat: Callable[[], None],
    keep_running: bool,
    seconds: float,
    quiet: bool,
) -> Callable[[], Study | None]:
    """Returns a function that opens the study of a worker, for some seconds also while the database refuses the login.

    With `keep_running` it waits until there is such a study, and returns None once `stop` is set.
    """

    def find() -> Study | None:
        if not keep_running:
            return _unless_refused(lambda: open_study(study, storage, quiet=quiet), stop, seconds)
        from miiii_search.coordinator.coordinator import wait_for_study

        database = _unless_refused(lambda: open_storage(storage, quiet=quiet), stop, seconds)
        return wait_for_study(database, study, stop, beat)

    return find


def _open_to_train(
    find: Callable[[], Study | None], any_version: bool, stop: threading.Event | None, beat: Callable[[], object]
) -> Study | None:
    """Opens a study that this version may train; waits for one until `stop` is set, if given, and then returns None."""

    def check(opened: Study) -> None:
        opened.check_version(any_version)

    if stop is not None:
        return when_compatible(find, check, stop, beat)
    opened = find()
    if opened is not None:
        check(opened)
    return opened


def _end_at_once(code: int) -> NoReturn:
    """Compiling cannot be interrupted, and the interpreter would wait for its thread."""
    to_close.close()
    streams.flush()
    os._exit(code)


def _unless_refused(open_: Callable[[], OpenedT], stop: threading.Event, seconds: float) -> OpenedT:
    """What `open_` returns; it is called again for some seconds while the database refuses the login."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return open_()
        except AccessRefusedError:
            if time.monotonic() >= deadline or stop.wait(REFUSAL_PAUSE_SECONDS):
                raise


def _end_refused(error: AccessRefusedError, idle: bool) -> NoReturn:
    """Says why, and ends this process; with `idle`, replaces it by one that waits for SIGTERM and holds no device."""
    wait = "; this worker waits without training: start it anew once it is invited again" * idle
    print(f"error: {' '.join(str(error).split())}{wait}", file=sys.stderr)
    to_close.close()
    streams.flush()
    if idle:
        signals = {s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        wait_for_signal = f"import signal; signal.sigwait({sorted(map(int, signals))})"
        os.execv(sys.executable, [sys.executable, "-ISc", wait_for_signal])
    os._exit(REFUSED_CODE)  # not sys.exit: the interpreter would wait for a thread that compiles


def parse_lanes(lanes: str) -> int | None:
    """A number of lanes, or None for as many as train fastest. Raises `MiiiiSearchError`."""
    if lanes == "auto":
        return None
    if not lanes.isdecimal() or int(lanes) < 1:
        raise MiiiiSearchError(f"--lanes must be a number of at least 1, or auto, but is `{lanes}`")
    return int(lanes)
