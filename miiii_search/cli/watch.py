"""Commands that show what is there: studies, and what keeps them from running."""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from miiii_search.cli import signals, streams
from miiii_search.cli.options import DEFAULT_STORAGE, PortOption, StorageOption, StudyOption, WithParent
from miiii_search.cli.output import say, show, write
from miiii_search.cli.resolve import open_storage, open_study


def status(
    study: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
    pruned: Annotated[bool, typer.Option("--pruned", help="List every trial that was pruned, and why")] = False,
) -> None:
    """Show where a study stands: counts, the best so far, throughput, time left.

    Example: miiii-search status --study demo --json
    """
    import json

    from miiii_search.study.status import LAST_PRUNED, read_status

    now = read_status(open_study(study, storage), None if as_json or pruned else LAST_PRUNED)
    if as_json:
        write(json.dumps(now.to_json()) + "\n")
        return
    from miiii_search.cli.views.study_status import pruned_table, status_view, waiting_for

    if pruned:
        show(pruned_table(now))
        return
    show(status_view(now, advice=False))
    if why := waiting_for(now):
        say(why)  # in one line, so that its command can be copied


def watch(study: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Show the same as `status`, live, until the study is done or nobody can see it.

    Example: miiii-search watch --study demo
    """
    from miiii_search.cli.views.live import live_view

    opened = open_study(study, storage)
    streams.need_output()
    stop = signals.stop_on_signals()
    with live_view(opened) as refresh:
        while not (refresh() or stop.wait(1.0) or streams.is_lost()):
            pass


def list_(
    storage: StorageOption = DEFAULT_STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """List the studies of a storage: state, counts, the best value, when each was created.

    Example: miiii-search list --storage sqlite:///miiii-search.db
    """
    import json

    from miiii_search.study.hints import hint
    from miiii_search.study.overview import list_deleted, list_studies
    from miiii_search.study.state import StudyState, describe_waiting

    database = open_storage(storage)
    listed = list_studies(database)
    if as_json:
        write(json.dumps([study.to_json() for study in listed]) + "\n")
        return
    from miiii_search.cli.views.studies import describe_deleted, studies_table

    show(studies_table(listed, str(database)))
    for one in listed:
        if one.state == StudyState.WAITING_FOR_COORDINATOR:
            start = hint("coordinate", "--study", one.name, database=database)
            say(describe_waiting(one.name, one.state, start))
    for line in describe_deleted(list_deleted(database)):
        say(line)


def dashboard(
    storage: StorageOption = DEFAULT_STORAGE,
    port: PortOption = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on")] = "127.0.0.1",
    writable: Annotated[bool, typer.Option(help="Let visitors change studies")] = False,
    published: Annotated[
        str | None, typer.Option(metavar="ADDRESS:PORT", help="In a container: where its machine publishes the port")
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(metavar="PATH", envvar="MIIII_DASHBOARD_ROOT_PATH", help="The path that a proxy serves it below"),
    ] = "",
    with_parent: WithParent = False,
) -> None:
    """Serve optuna-dashboard on the studies of a storage, read-only unless asked otherwise.

    A host that others can reach needs a password in MIIII_DASHBOARD_PASSWORD, or in the file that
    MIIII_DASHBOARD_PASSWORD_FILE names.

    Example: miiii-search dashboard --port 8080

    Example: miiii-search dashboard --root-path /optuna
    """
    from miiii_search.dashboard.app import application, serve
    from miiii_search.dashboard.auth import check_exposure, read_password
    from miiii_search.dashboard.page import parse_root_path
    from miiii_search.storage.combined_artifact_store import CombinedArtifactStore

    password = read_password()
    check_exposure(host, password, published)
    if with_parent:
        signals.at_parents_end(lambda: os.kill(os.getpid(), signal.SIGTERM))
    signals.end_at_hangup()
    database = open_storage(storage, quiet=with_parent)
    stores = CombinedArtifactStore(database)
    page = application(database.optuna, stores, writable=writable, password=password, root_path=root_path)

    def ready(url: str) -> None:
        address = f"http://{published}/" if published else url
        say(f"dashboard: {address.rstrip('/')}{parse_root_path(root_path)}/")

    serve(page, host, port, ready)
