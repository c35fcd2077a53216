"""The command `up`: a whole study on this machine, and its best configuration as a file."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

# All imports are here: a search takes hours, and the installation may be upgraded before it ends.
from miiii_search.cli import exit_codes
from miiii_search.cli.output import print_line
from miiii_search.cli.views.console import console
from miiii_search.cli.views.live import live_view
from miiii_search.cli.views.rankings import ranking, seed_stats_table
from miiii_search.coordinator.local import ChildProcess, run_study
from miiii_search.errors import MiiiiSearchError, WorkerDiedError
from miiii_search.files import check_writable, file_name, write_file
from miiii_search.storage.hints import file_argument, hides_password, hint
from miiii_search.study.export import export_best
from miiii_search.study.status import read_status

if TYPE_CHECKING:
    from miiii_search.study.study import Study


def run_until_done(
    study: Study, storage: str, *, lanes: int | None, dashboard_port: int | None, stop: threading.Event
) -> bool:
    """Coordinate and train a study, and show it live.

    Args:
        study: The study.
        storage: The storage's URL, for the processes of the worker and the dashboard.
        lanes: Number of trials to train at a time; None: as many as train fastest.
        dashboard_port: Port of optuna-dashboard; None: it is not served.
        stop: Set when the process is requested to stop.

    Returns:
        Whether the study is done.

    Raises:
        typer.Exit: The worker's process ended unexpectedly; the reason was printed.
    """
    dashboard = (
        nullcontext()
        if dashboard_port is None
        else ChildProcess(
            storage, ["dashboard", "--port", str(dashboard_port)], logging.getLogger("miiii_search.dashboard")
        )
    )
    try:
        with dashboard, live_view(study) as refresh:
            return run_study(study, storage, lanes=lanes, stop=stop, on_poll=refresh)
    except WorkerDiedError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(exit_codes.FAILURE) from None


def report_results(study: Study) -> None:
    """Print the best trials, write the best configuration to a file, and print the commands that use it.

    Raises:
        MiiiiSearchError: No trial was completed, or the file cannot be written.
    """
    console.print(ranking(study))
    status = read_status(study, pruned=0)
    if status.configurations:
        console.print(seed_stats_table(status.configurations))
    if status.best is None:
        reasons = ["--pruned"] if status.counts["pruned"] else []
        raise MiiiiSearchError(
            f"no trial of study `{study.name}` was completed, so there is nothing to export; "
            f"for the reasons type {hint('status', '--study', study.name, *reasons, database=study.database)}"
        )
    path = _result_path(study.name)
    try:
        write_file(path, export_best(study).to_toml(path))
    except OSError as error:
        raise MiiiiSearchError(
            f"the study is done, but cannot write {path}: {error.strerror}; write its best configuration elsewhere, "
            f"with --out FILE: {hint('best', '--study', study.name, database=study.database)}"
        ) from None
    print_line(f"\nThe best configuration is in {path}. Next:")
    print_line(f"  {hint('dashboard', database=study.database)}")
    print_line(f"  {hint('train', file_argument(path), '--out', 'runs/best')}")
    print_line(f"  {hint('analyze', 'runs/best')}")
    if hides_password(study.database):
        print_line("where MIIII_STORAGE holds the URL of the storage, which has a password")


def check_result_path(name: str) -> None:
    """Check that the best configuration of a study can be written to this folder.

    Raises:
        MiiiiSearchError: It cannot be written.
    """
    path = _result_path(name)
    try:
        check_writable(path)
    except OSError as error:
        raise MiiiiSearchError(
            f"cannot write the result, {path}, to this folder: {error.strerror}; run the command in another one"
        ) from None


def _result_path(name: str) -> Path:
    """Return the file for the best configuration of a study."""
    return Path(file_name(name, "-best.toml"))
