"""Commands that create studies and train their trials."""

from __future__ import annotations

from miiii_search.cli import signals
from miiii_search.cli.options import (
    DEFAULT_STORAGE,
    AccessOption,
    AnyVersionOption,
    ArtifactsOption,
    CheckpointEveryOption,
    CheckpointsOption,
    DeviceOption,
    DryRunOption,
    ExitCodeOnStopOption,
    GraceOption,
    IdleWhenRefusedOption,
    KeepRunningOption,
    KeepSpecOption,
    KeysOption,
    LanesOption,
    LivenessFileOption,
    MetricsHostOption,
    MetricsPortOption,
    NewStudyOption,
    PortOption,
    PresetOption,
    SetOption,
    ShareEveryOption,
    ShowDashboardOption,
    SnapshotsOption,
    SpecOption,
    StorageOption,
    StudyOption,
    TrialsOption,
    WithParentOption,
    WorkerNameOption,
)
from miiii_search.cli.output import print_line, report_removed_variables, write_result
from miiii_search.cli.study_request import StudyRequest, open_or_create
from miiii_search.environment import state_folder
from miiii_search.errors import MiiiiSearchError


def up(
    preset: PresetOption = None,
    study_name: NewStudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: TrialsOption = None,
    artifacts: ArtifactsOption = None,
    settings: SetOption = None,
    spec_file: SpecOption = None,
    lanes: LanesOption = "auto",
    port: PortOption = 8080,
    dashboard: ShowDashboardOption = True,
    any_version: AnyVersionOption = False,
) -> None:
    """Run a study on this machine until it is done.

    Starts a coordinator, one worker and the dashboard, and writes the best configuration to a file. Ctrl-C stops
    cleanly; the same command continues.

    Examples:
        miiii-search up --preset demo --set experiment.p=23
        miiii-search up --preset demo --set 'replicates={count=3, top=4}'
    """
    from miiii_search.cli.local_search import check_result_path, report_results, run_until_done

    n_lanes = parse_lanes(lanes)
    report_removed_variables()
    request = StudyRequest(study_name, storage, preset, spec_file, settings, trials, artifacts)
    study = open_or_create(request, check_name=check_result_path)
    stop = signals.stop_on_signals()
    study.check_version(any_version)
    if run_until_done(study, storage, lanes=n_lanes, dashboard_port=port if dashboard else None, stop=stop):
        report_results(study)
    else:
        print_line("stopped; the same command continues")


def create(
    study_name: NewStudyOption = None,
    preset: PresetOption = None,
    spec_file: SpecOption = None,
    settings: SetOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: TrialsOption = None,
    artifacts: ArtifactsOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Create a study and its queue of trials.

    If the study exists with the same specification, nothing changes.

    Examples:
        miiii-search create --study table-1 --preset paper
        miiii-search create --preset demo --set experiment.p=23 --dry-run
    """
    request = StudyRequest(study_name, storage, preset, spec_file, settings, trials, artifacts)
    if not dry_run:
        open_or_create(request)
        return
    import tomli_w

    from miiii_search.config.overrides import to_tree

    write_result(tomli_w.dumps(to_tree(request.spec())))


def coordinate(
    study_name: NewStudyOption = None,
    preset: PresetOption = None,
    spec_file: SpecOption = None,
    settings: SetOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: TrialsOption = None,
    artifacts: ArtifactsOption = None,
    keep: KeepSpecOption = False,
    keep_running: KeepRunningOption = False,
    liveness_file: LivenessFileOption = None,
    keys: KeysOption = None,
    access: AccessOption = None,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
) -> None:
    """Supervise a study, and create it if it does not exist.

    Returns overdue trials to their queues, also those of other studies in the storage, until the study is done.

    A study that was deleted is not created again. With --keep-running the coordinator waits until `create` or `up`
    creates it; otherwise it exits.

    Examples:
        miiii-search coordinate --study table-1
        miiii-search coordinate --study table-1 --preset paper
    """
    stop = signals.stop_on_signals()
    from miiii_search.cli.coordinator_process import CoordinatorProcess, CoordinatorProcessOptions

    request = StudyRequest(study_name, storage, preset, spec_file, settings, trials, artifacts)
    options = CoordinatorProcessOptions(
        request, keep, keep_running, liveness_file, keys, access, metrics_port, metrics_host
    )
    CoordinatorProcess(options, stop).run()


def work(
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    lanes: LanesOption = "auto",
    snapshots: SnapshotsOption = None,
    checkpoints: CheckpointsOption = None,
    checkpoint_every: CheckpointEveryOption = 60,
    share_every: ShareEveryOption = 600,
    grace: GraceOption = 10,
    any_version: AnyVersionOption = False,
    device: DeviceOption = "auto",
    keep_running: KeepRunningOption = False,
    liveness_file: LivenessFileOption = None,
    exit_code_on_stop: ExitCodeOnStopOption = 0,
    idle_when_refused: IdleWhenRefusedOption = False,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    name: WorkerNameOption = None,
    with_parent: WithParentOption = False,
) -> None:
    """Train trials of a study until none are left.

    Any number of workers can train the same study, on any machines.

    After a request to stop (Ctrl-C, SIGTERM or a closed terminal), a worker saves its trials and returns them to the
    queue. Other workers continue them. A second Ctrl-C or SIGTERM ends it at once. If the database refuses its
    login for the duration of a lease, as after `invite --revoke`, it exits with code 77.

    Examples:
        miiii-search work --study table-1
        MIIII_STORAGE=postgresql://me:secret@db/miiii miiii-search work
    """
    from miiii_search.cli.worker_process import WorkerProcess, WorkerProcessOptions

    options = WorkerProcessOptions(
        study_name=study_name,
        storage=storage,
        lanes=parse_lanes(lanes),
        snapshots=snapshots,
        checkpoints=checkpoints or state_folder() / "checkpoints",
        checkpoint_every=checkpoint_every,
        share_every=share_every,
        grace=grace,
        any_version=any_version,
        device=device,
        keep_running=keep_running,
        liveness_file=liveness_file,
        exit_code_on_stop=exit_code_on_stop,
        idle_when_refused=idle_when_refused,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        name=name,
        with_parent=with_parent,
    )
    stop = signals.stop_on_signals()
    if with_parent:
        signals.call_when_parent_ends(stop.set)
    WorkerProcess(options, stop).run()


def parse_lanes(lanes: str) -> int | None:
    """Return the number of lanes, or None for "auto".

    Raises:
        MiiiiSearchError: The value is neither "auto" nor a positive integer.
    """
    if lanes == "auto":
        return None
    if not lanes.isdecimal() or int(lanes) < 1:
        raise MiiiiSearchError(
            f"--lanes must be a number of at least 1, or auto, but is `{lanes}`; type for example --lanes 4"
        )
    return int(lanes)
