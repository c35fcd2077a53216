"""Commands that show studies: their status, a list of them, and the dashboard."""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from miiii_search.cli import signals, streams
from miiii_search.cli.options import (
    DEFAULT_STORAGE,
    HostOption,
    JsonOption,
    PortOption,
    PublishedOption,
    RootPathOption,
    StorageOption,
    StudyOption,
    WithParentOption,
    WritableOption,
)
from miiii_search.cli.output import print_line, print_result, write_result
from miiii_search.cli.resolve import open_storage, open_study


def status(
    study_name: StudyOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    as_json: JsonOption = False,
    pruned: Annotated[bool, typer.Option("--pruned", help="List all pruned trials with the reasons.")] = False,
) -> None:
    """Show counts, the best trial and the time left of a study.

    Also shows the running trials with their workers, the best of the trials that have ended, and the last pruned ones.

    Examples:
        miiii-search status --study demo
        miiii-search status --study demo --json
    """
    import json

    from miiii_search.study.status import LAST_PRUNED, read_status

    now = read_status(open_study(study_name, storage), None if as_json or pruned else LAST_PRUNED)
    if as_json:
        write_result(json.dumps(now.to_json()) + "\n")
        return
    from miiii_search.cli.views.study_status import pruned_table, status_view, waiting_for

    if pruned:
        print_result(pruned_table(now))
        return
    print_result(status_view(now, advice=False))
    if why := waiting_for(now):
        print_line(why)  # in one line, so that its command can be copied


def watch(study_name: StudyOption = None, storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Show the status of a study live, until it is done.

    Ends earlier if nothing reads the output any more. Without a terminal, one line is printed every 20 seconds.

    Examples:
        miiii-search watch --study demo
    """
    from miiii_search.cli.views.live import live_view

    study = open_study(study_name, storage)
    streams.require_output()
    stop = signals.stop_on_signals()
    with live_view(study) as refresh:
        while not (refresh() or stop.wait(1.0) or streams.is_output_lost()):
            pass


def list_(storage: StorageOption = DEFAULT_STORAGE, as_json: JsonOption = False) -> None:
    """List the studies of a storage.

    For each study: its state, its number of trials in each state, its best value, and when it was created.

    Examples:
        miiii-search list
        miiii-search list --storage sqlite:///miiii-search.db --json
    """
    import json

    from miiii_search.storage.hints import hint
    from miiii_search.study.overview import list_deleted, list_studies
    from miiii_search.study.state import StudyState, describe_waiting

    database = open_storage(storage)
    overviews = list_studies(database)
    if as_json:
        write_result(json.dumps([study.to_json() for study in overviews]) + "\n")
        return
    from miiii_search.cli.views.studies import describe_deleted, studies_table

    print_result(studies_table(overviews, str(database)))
    for one in overviews:
        if one.state == StudyState.WAITING_FOR_COORDINATOR:
            command = hint("coordinate", "--study", one.name, database=database)
            print_line(describe_waiting(one.name, one.state, command))
    for line in describe_deleted(list_deleted(database)):
        print_line(line)


def dashboard(
    storage: StorageOption = DEFAULT_STORAGE,
    port: PortOption = 8080,
    host: HostOption = "127.0.0.1",
    writable: WritableOption = False,
    published: PublishedOption = None,
    root_path: RootPathOption = "",
    with_parent: WithParentOption = False,
) -> None:
    """Serve optuna-dashboard for the studies of a storage.

    Visitors can change nothing, unless --writable is given. An address that other machines can reach needs a
    password, in MIIII_DASHBOARD_PASSWORD or in the file that MIIII_DASHBOARD_PASSWORD_FILE names.

    Examples:
        miiii-search dashboard --port 8080
        miiii-search dashboard --root-path /optuna
    """
    from miiii_search.dashboard.app import make_application
    from miiii_search.dashboard.auth import check_exposure, read_password
    from miiii_search.dashboard.page import parse_root_path
    from miiii_search.dashboard.server import serve
    from miiii_search.storage.combined_artifact_store import CombinedArtifactStore

    password = read_password()
    check_exposure(host, password, published)
    if with_parent:
        signals.call_when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    signals.treat_hangup_as_termination()
    database = open_storage(storage, quiet=with_parent)
    stores = CombinedArtifactStore(database)
    page = make_application(database.optuna, stores, writable=writable, password=password, root_path=root_path)

    def ready(url: str) -> None:
        address = f"http://{published}/" if published else url
        print_line(f"dashboard: {address.rstrip('/')}{parse_root_path(root_path)}/")

    serve(page, host, port, ready)
