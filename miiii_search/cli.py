"""The command line: each command is a few lines over the packages."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from miiii_search.errors import UserError

if TYPE_CHECKING:
    from miiii_search.search.spec import StudySpec
    from miiii_search.search.study import Study

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hyperparameter search for networks that grok families of modular tasks.\n\n"
    "Example: miiii-search up --preset demo",
)


# What each option falls back to is decided in `_database` and `_spec`, so that help shows it once.
def _storage_of(value: str) -> str:
    """A storage as given, or the one in the file that `MIIII_STORAGE_FILE` names. Raises `UserError`."""
    path = os.environ.get("MIIII_STORAGE_FILE")
    if value != DEFAULT_STORAGE or not path:
        return value
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"cannot read the storage's URL from MIIII_STORAGE_FILE={path}: {error.strerror}") from None


StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="MIIII_STORAGE",
        callback=_storage_of,
        help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DB; MIIII_STORAGE_FILE names a file with it",
    ),
]
StudyOption = Annotated[
    str | None,
    typer.Option("--study", envvar="MIIII_STUDY", help="The study's name; needless where there is one"),
]
PresetOption = Annotated[str | None, typer.Option(envvar="MIIII_PRESET", help="demo, narrow, paper or authors-code")]
SpecOption = Annotated[Path | None, typer.Option(help="A study's spec as a TOML or JSON file, instead of a preset")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", envvar="MIIII_SET", help="Any field of the spec; may be repeated"),
]
TrialsOption = Annotated[
    int | None, typer.Option(envvar="MIIII_TRIALS", help="The budget: the first so many of the queue", min=1)
]
LanesOption = Annotated[
    str,
    typer.Option(metavar="N|auto", envvar="MIIII_LANES", help="Trials at once; auto: as many as train fastest here"),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        envvar="MIIII_ARTIFACTS",
        metavar="URL",
        help="Where a new study keeps its artifacts: /FOLDER or s3://BUCKET/PREFIX; unset: its database",
        show_default=False,
    ),
]
SnapshotsOption = Annotated[
    Path | None, typer.Option(help="A folder for the weights of every trial at epochs 256, 512, 1024, …")
]
CheckpointsOption = Annotated[
    Path | None,
    typer.Option(
        help="A folder on this machine for running trials; unset: miiii-search/checkpoints in XDG_STATE_HOME",
        show_default=False,
    ),
]
PortOption = Annotated[int, typer.Option(help="The dashboard's port; 0 is any free one", min=0, max=65535)]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        envvar="MIIII_METRICS_PORT", help="Serve metrics for Prometheus; 0 is any free port", min=0, max=65535
    ),
]
MetricsHostOption = Annotated[
    str, typer.Option(envvar="MIIII_METRICS_HOST", help="The address of the metrics; anyone who reaches it reads them")
]
WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True)]
StayOption = Annotated[bool, typer.Option(help="Stay when the study is done, for one that is extended")]
PulseOption = Annotated[
    Path | None, typer.Option("--pulse", envvar="MIIII_PULSE", help="A file to touch every second, for a healthcheck")
]
KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", envvar="MIIII_KEYS", help="The folder with the keys of an installation of containers"),
]
AccessOption = Annotated[
    Path | None, typer.Option("--access", envvar="MIIII_ACCESS", help="The folder with what workers may read of them")
]

DEFAULT_STORAGE = "sqlite:///miiii-search.db"

_opened = ExitStack()
"""What is closed at a command's end."""


@app.command()
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
    """
    from miiii_search.search.box import Child, WorkerDied, run_study
    from miiii_search.search.export import export_best
    from miiii_search.search.status import best_trial
    from miiii_search.terminal.display import command_name, console, ranking

    n_lanes = _lanes(lanes)
    opened = _create(study, storage, preset, spec, settings, trials, artifacts)
    stop = _stop_on_signals()
    arguments = ["dashboard", "--port", str(port)]
    page = Child(storage, arguments, _say) if dashboard else nullcontext()
    try:
        with page, _live(opened) as refresh:
            done = run_study(opened, storage, lanes=n_lanes, stop=stop, say=_say, on_poll=refresh)
    except WorkerDied as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if not done:
        _say("stopped; the same command continues")
        return
    console.print(ranking(opened))
    if best_trial(opened.trials()) is None:
        raise UserError(f"no trial of study `{opened.name}` was completed, so there is nothing to export")
    path = Path(f"{opened.name}-best.toml".replace(os.sep, "_"))
    path.write_text(export_best(opened).to_toml(), encoding="utf-8")
    known = storage == DEFAULT_STORAGE or "MIIII_STORAGE" in os.environ
    suffix = "" if known else f" --storage '{opened.database}'"
    console.print(f"\nThe best configuration is in {path}. Next:")
    console.print(f"  {command_name()} dashboard{suffix}", soft_wrap=True)
    console.print(f"  {command_name()} train {path} --out runs/best", soft_wrap=True)


@app.command()
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

        print(tomli_w.dumps(to_tree(_spec(preset, spec, settings, trials))), end="")
        return
    _create(study, storage, preset, spec, settings, trials, artifacts)


@app.command()
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

    Example: miiii-search coordinate --study table-1 --storage postgresql://me:secret@db/miiii
    """
    from miiii_search.search import monitoring
    from miiii_search.search.coordinator import supervise, wait_for_more
    from miiii_search.service.pulse import Pulse

    stop, beat = _stop_on_signals(), Pulse(pulse)
    opened = _create(study, storage, preset, spec, settings, trials, artifacts, keep)
    if keys and access:
        from miiii_search.service.roles import let_workers_in

        let_workers_in(opened.database, _keys(keys, access))
    supervision = monitoring.Supervision()
    with monitoring.serve(supervision.metrics, metrics_host, metrics_port, _say):
        while True:
            done = supervise(opened, stop, _say, beat, observe=supervision.observe)
            _say(f"study `{opened.name}` is done" if done else "stopped; the same command continues")
            if not (done and stay and wait_for_more(opened, stop, _say, beat)):
                return


@app.command()
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

    Told to stop (Ctrl-C or SIGTERM), it saves its trials and hands them back; whoever claims one goes on from
    there. A second signal ends it at once.

    Example: MIIII_STORAGE=postgresql://me:secret@db/miiii miiii-search work --study table-1
    """
    n_lanes = _lanes(lanes)
    stop = _stop_on_signals()
    if with_parent:
        _at_parents_end(stop.set)
    opened = _open(study, storage)
    from miiii_search.experiment.device import choose_device, describe_device, use_compilation_cache
    from miiii_search.search import monitoring
    from miiii_search.search.checkpoints import Policy
    from miiii_search.search.coordinator import wait_for_more
    from miiii_search.search.worker import Worker
    from miiii_search.service.pulse import Pulse

    choose_device(device)
    use_compilation_cache()
    _say(f"worker on {describe_device()}, lanes: {lanes}")
    policy = Policy(checkpoints or _state_folder() / "checkpoints", checkpoint_every, share_every)
    beat = Pulse(pulse)

    def begin() -> Worker:
        return Worker(
            opened,
            n_lanes,
            _say,
            snapshots,
            checkpoints=policy,
            any_version=any_version,
            grace_seconds=grace,
            on_turn=beat,
        )

    worker = begin()
    with monitoring.serve(lambda: worker.metrics(), metrics_host, metrics_port, _say):
        worker.run(stop)
        while stay and not stop.is_set():
            _say(f"study `{opened.name}` is done; waiting for more")
            if wait_for_more(opened, stop, _say, beat):
                worker = begin()
                worker.run(stop)
    if stop.is_set():
        # Compiling cannot be interrupted, and the interpreter would wait for its thread.
        _opened.close()
        sys.stdout.flush()
        os._exit(stopped_code)


@app.command()
def status(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """Show where a study stands: counts, the best so far, throughput, time left.

    Example: miiii-search status --study demo --json
    """
    import json

    from miiii_search.search.status import read_status

    now = read_status(_open(study, storage))
    if as_json:
        print(json.dumps(now.to_json()))
        return
    from miiii_search.terminal.display import console, status_view

    console.print(status_view(now))


@app.command()
def watch(study: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Show the same as `status`, live, until the study is done.

    Example: miiii-search watch --study demo
    """
    opened = _open(study, storage)
    stop = _stop_on_signals()
    with _live(opened) as refresh:
        while not (refresh() or stop.wait(1.0)):
            pass


@app.command("list")
def list_(
    storage: StorageOption = DEFAULT_STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """List the studies of a storage: state, counts, the best value, when each was created.

    Example: miiii-search list --storage sqlite:///miiii-search.db
    """
    import json

    from miiii_search.search.listing import list_studies

    database = _database(storage)
    listed = list_studies(database)
    if as_json:
        print(json.dumps([study.to_json() for study in listed]))
        return
    from miiii_search.terminal.display import console
    from miiii_search.terminal.studies import studies_table

    console.print(studies_table(listed, str(database)))


@app.command()
def pause(study: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Pause a study: its workers save their trials, hand them back and wait; its wall time stands still.

    Example: miiii-search pause --study table-1
    """
    from miiii_search.search.pausing import pause

    opened = _open(study, storage)
    was = "is paused now" if pause(opened) else "is paused already"
    _say(f"study `{opened.name}` {was}; its workers hand back what they train and wait for miiii-search resume")


@app.command()
def resume(study: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Let a paused study go on; workers that wait notice by themselves.

    Example: miiii-search resume --study table-1
    """
    from miiii_search.search.pausing import resume

    opened = _open(study, storage)
    _say(f"study `{opened.name}` {'goes on' if resume(opened) else 'is not paused'}")


@app.command()
def extend(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    trials: Annotated[int | None, typer.Option(help="The new budget: so many trials in all", min=1)] = None,
    settings: SetOption = None,
) -> None:
    """Add trials to a study: a larger budget, a larger space, more replicates. Only new points are queued.

    Workers that run see it by themselves; a study that was done goes on once a worker is started.

    Example: miiii-search extend --study table-1 --set 'space.learning_rate=[3e-4, 1e-4, 1e-3]'
    """
    from miiii_search.search.extending import extend

    wanted = [*(settings or []), *([f"budget.trials={trials}"] if trials else [])]
    if not wanted:
        raise UserError("extend by what? give --trials N, or --set 'space.NAME=[old values and new ones]'")
    opened = _open(study, storage)
    done = extend(opened, wanted)
    what = f"{done.queued} trials are new in the queue" if done.changed else "has all this already"
    _say(f"study `{opened.name}`: {what}, {done.n_trials} in all")


@app.command()
def delete(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even while workers train trials of it")] = False,
) -> None:
    """Delete a study with its trials, artifacts and checkpoints. Asks first.

    Example: miiii-search delete --study demo
    """
    from miiii_search.search.deleting import delete, holdings
    from miiii_search.terminal.studies import describe_holdings

    if study is None:
        raise UserError("which study? name it with --study; miiii-search list shows those that there are")
    opened = _open(study, storage)
    _say(f"study `{opened.name}` in {opened.database}: {describe_holdings(holdings(opened))}")
    _ask("Delete it for good?", yes)
    delete(opened, force=force)
    _say(f"study `{opened.name}` is deleted")


@app.command()
def tidy(
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

    Example: miiii-search tidy --keep-records 20 --study table-1
    """
    from miiii_search.search.retention import old_snapshots, remove_snapshots, tidy
    from miiii_search.terminal.studies import megabytes

    opened = _open(study, storage)
    found = tidy(opened, keep_records, dry_run=True)
    _say(f"study `{opened.name}`: {found.artifacts:,} artifacts of {found.trials:,} trials, {megabytes(found.size)}")
    weights = old_snapshots(opened, snapshots, keep_records) if snapshots else []
    size = sum(path.stat().st_size for path in weights)
    if snapshots:
        _say(f"{snapshots}: {len(weights):,} snapshots, {megabytes(size)}")
    if found.artifacts or weights:
        _ask("Remove them for good?", yes)
        remove_snapshots(weights)
        _say(f"removed {megabytes(tidy(opened, keep_records).size + size)}")


@app.command()
def export_study(
    file: Annotated[Path, typer.Argument(help="The file to write; one that is there is replaced")],
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Write a whole study into one file: trials, reports, notes, artifacts, checkpoints, what it used of its budget.

    Example: miiii-search export-study table-1.zip --study table-1
    """
    from miiii_search.search.archive import export_study
    from miiii_search.terminal.studies import megabytes

    opened = _open(study, storage)
    _say(f"study `{opened.name}` is in {file}: {megabytes(export_study(opened, file))}")


@app.command()
def import_study(
    file: Annotated[Path, typer.Argument(help="A file that `export-study` wrote")],
    study: Annotated[str | None, typer.Option(help="Another name for the study than the file's")] = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Add the study in a file to a storage of any kind; its workers go on where it was.

    Example: miiii-search import-study table-1.zip --storage postgresql://me:secret@db/miiii
    """
    from miiii_search.search.archive import import_study

    database = _database(storage, create=True)
    opened = import_study(database, file, study)
    _say(f"study `{opened.name}` is in {database}: {len(opened.trials())} trials")


@app.command()
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
    exported = export_best(_open(study, storage))
    text = exported.to_json() if chosen == "json" else exported.to_toml()
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    _say(f"trial {exported.provenance['trial']} of study `{exported.provenance['study']}` is in {out}")


@app.command()
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


@app.command()
def dashboard(
    storage: StorageOption = DEFAULT_STORAGE,
    port: PortOption = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on")] = "127.0.0.1",
    writable: Annotated[bool, typer.Option(help="Let visitors change studies")] = False,
    published: Annotated[
        str | None, typer.Option(metavar="ADDRESS:PORT", help="In a container: where its machine publishes the port")
    ] = None,
    with_parent: WithParent = False,
) -> None:
    """Serve optuna-dashboard on the studies of a storage, read-only unless asked otherwise.

    A host that others can reach needs a password in MIIII_DASHBOARD_PASSWORD, or in the file that
    MIIII_DASHBOARD_PASSWORD_FILE names.

    Example: miiii-search dashboard --port 8080
    """
    from miiii_search.search.exposure import check_exposure, read_password
    from miiii_search.search.dashboard import application, serve
    from miiii_search.search.places import AllPlaces

    password = read_password()
    check_exposure(host, password, published)
    if with_parent:
        _at_parents_end(lambda: os.kill(os.getpid(), signal.SIGTERM))
    database = _database(storage)
    page = application(database.optuna, AllPlaces(database), writable=writable, password=password)
    serve(page, host, port, lambda url: _say(f"dashboard: {f'http://{published}/' if published else url}"))


@app.command(hidden=True)
def make_keys(keys: KeysOption = None, access: AccessOption = None) -> None:
    """Make the passwords and certificates of an installation of containers, where there are none.

    Example: miiii-search make-keys --keys /var/lib/miiii/keys --access /var/lib/miiii/access
    """
    _keys(keys, access).prepare()


@app.command()
def invite(
    host: Annotated[
        str | None, typer.Option(help="The name or address by which the other machine reaches this one")
    ] = None,
    name: Annotated[
        str, typer.Option(help="What to call the other machine: a role of the database is named for it")
    ] = "",
    port: Annotated[int, typer.Option(help="The port at which this machine publishes the database")] = 5432,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Take the role away instead, and end its connections")
    ] = False,
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    keys: KeysOption = None,
    access: AccessOption = None,
) -> None:
    """Let another machine train: make its password and certificate, and print what to type there.

    Example: docker compose exec coordinator miiii-search invite --host gpu1.lab --name gpu2
    """
    from miiii_search.service import invite as invitation
    from miiii_search.service.roles import drop_worker, role_name

    if not name:
        raise UserError("say which machine is meant, with --name gpu2 for instance")
    if revoke:
        drop_worker(_database(storage), role_name(name))
        _say(f"the role {role_name(name)} is gone; its trials go back to the queue when their leases run out")
        return
    if not host:
        raise UserError("say by which name or address the other machine reaches this one, with --host gpu1.lab")
    print(invitation.invite(_database(storage), _keys(keys, access), name, host, port, study), end="")


@app.command()
def doctor(study: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Check Python, JAX and its devices, versions, and the storage; exit code 1 if something is wrong.

    Example: miiii-search doctor --storage postgresql://me:secret@db/miiii
    """
    from miiii_search.terminal.doctor import examine

    if not examine(storage, study):
        raise typer.Exit(1)


def main() -> None:
    """The entry point: a mistake of the user's is one line on standard error and exit code 2."""
    try:
        with _opened:
            code: Any = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except typer._click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        sys.exit(2)
    except typer._click.exceptions.UsageError as error:
        command = f"miiii-search {error.ctx.info_name}" if error.ctx and error.ctx.parent else "miiii-search"
        _fail(f"{error.format_message().rstrip('.')}; see {command} --help")
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if not _is_lost_database(error):
            raise
        print(
            "error: the database stopped answering; once it is back, the same command continues, and trials that "
            "were running go back to the queue when their leases run out",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _is_lost_database(error: Exception) -> bool:
    """Whether an open database went away; what could not be opened is a `UserError`."""
    if "sqlalchemy" not in sys.modules:
        return False
    from miiii_search.search.patience import is_lost

    return is_lost(error)


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _say(line: str) -> None:
    from miiii_search.terminal.display import console

    console.print(line, soft_wrap=True, markup=False)


def _ask(question: str, yes: bool) -> None:
    """Goes on only if the answer is yes, or was given with the command."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("this asks first, and nobody is there to answer; add --yes")
    typer.confirm(question, abort=True)


def _database(storage: str, create: bool = False) -> Any:
    from miiii_search.search.storage import open_database

    database = open_database(storage, create=create)
    _opened.callback(database.close)
    return database


def _keys(keys: Path | None, access: Path | None) -> Any:
    from miiii_search.service.keys import Keys

    if keys is None or access is None:
        raise UserError("this is for an installation of containers: docker compose exec coordinator miiii-search ...")
    return Keys(keys, access)


def _open(study: str | None, storage: str) -> Study:
    from miiii_search.search.study import open_study

    return open_study(_database(storage), study)


def _create(
    study: str | None,
    storage: str,
    preset: str | None,
    spec: Path | None,
    settings: list[str] | None,
    trials: int | None,
    artifacts: str | None,
    keep: bool = False,
) -> Study:
    """The study of this name as it is, or a new one; with options, it must have just these unless `keep`."""
    from miiii_search.search.places import parse_place, prepare_place
    from miiii_search.search.settings import difference
    from miiii_search.search.study import create_study, open_study, study_names

    if preset and spec:
        raise UserError("--preset and --spec are two ways to say the same: choose one")
    wanted = _spec(preset, spec, settings, trials)
    name = study or wanted.preset or (spec.stem if spec else "study")
    as_it_is = keep or not (preset or spec or settings or trials)
    database = _database(storage, create=True)
    known = name in study_names(database)
    place = parse_place(artifacts) if artifacts else None
    if place and not known:
        prepare_place(place)
    opened = open_study(database, name) if as_it_is and known else create_study(database, name, wanted, place)
    if place and opened.place != place and not keep:
        kept = opened.place or "its database"
        raise UserError(f"study `{name}` keeps its artifacts in {kept}, not in {place}; leave --artifacts out")
    n_trials = opened.spec.n_trials
    counts = f"{n_trials} trial{'s' * (n_trials != 1)} of up to {opened.spec.experiment.epochs:,} epochs"
    _say(f"study `{name}` {'exists' if known else 'created'} in {database}: {counts}")
    if keep and (differences := difference(opened.spec, wanted)):
        _say(f"it goes on as it is, though the settings are others: {'; '.join(differences)}")
    return opened


def _spec(preset: str | None, spec: Path | None, settings: list[str] | None, trials: int | None) -> StudySpec:
    from miiii_search.search.presets import get_preset
    from miiii_search.search.pruning import check_pruning
    from miiii_search.search.settings import read_toml, to_tree, validate, with_settings
    from miiii_search.search.spec import StudySpec

    tree = read_toml(spec) if spec else to_tree(get_preset(preset or "demo").spec)
    if spec:
        validate(StudySpec, tree, str(spec))
    wanted = with_settings(StudySpec, tree, [*(settings or []), *([f"budget.trials={trials}"] if trials else [])])
    check_pruning(wanted)
    return wanted


def _live(study: Study) -> Any:
    from miiii_search.terminal.live import live

    return live(study)


def _state_folder() -> Path:
    """Where what outlives a process lies on this machine."""
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "miiii-search"


def _lanes(lanes: str) -> int | None:
    """A number of lanes, or None for as many as train fastest. Raises `UserError`."""
    if lanes == "auto":
        return None
    if not lanes.isdecimal() or int(lanes) < 1:
        raise UserError(f"--lanes must be a number of at least 1, or auto, but is `{lanes}`")
    return int(lanes)


def _stop_on_signals() -> threading.Event:
    """Set by the first SIGINT or SIGTERM; the second one ends the process at once."""
    stop = threading.Event()
    asked, ask = os.pipe()

    def watch() -> None:
        os.read(asked, 1)
        stop.set()
        [number] = os.read(asked, 1)
        os._exit(128 + number)

    # Not in a handler: it would run in the main thread, only once that comes out of compiling, and would wait for
    # ever for the event's lock where it interrupts the main thread with that lock in its hands.
    threading.Thread(target=watch, name="signals", daemon=True).start()
    os.set_blocking(ask, False)
    signal.set_wakeup_fd(ask)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    return stop


def _at_parents_end(act: Any) -> None:
    """Acts when the process that started this one is gone: its end of our standard input closes."""

    def watch() -> None:
        # Not through sys.stdin, whose lock a thread that waits would hold at the interpreter's end.
        while os.read(0, 1024):
            pass
        act()

    threading.Thread(target=watch, daemon=True).start()
