"""Takes the README's pictures from the real thing: a demo study, watched as it runs and shown in a browser at its end.

Needs Chromium and Playwright, and some minutes: python docs/images/make_screenshots.py
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from miiii_search.cli.views.study_status import status_view
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.database import open_database
from miiii_search.study.open import open_study
from miiii_search.study.status import Status, read_status

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "miiii_search"]
COLUMNS = 124


def main() -> None:
    """Write all screenshots."""
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/study.db"
        environment = {**os.environ, "MIIII_STORAGE": storage, "XDG_STATE_HOME": folder, "PYTHONUNBUFFERED": "1"}
        up = [*COMMAND, "up", "--preset", "demo", "--no-dashboard"]
        with subprocess.Popen(up, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as study:
            try:
                watch(storage, study)
            finally:
                study.wait()
        browse(environment)


def watch(storage: str, study: subprocess.Popen[bytes]) -> None:
    """Draws what `watch` shows in the second half of the study, with long curves in its lanes."""
    best = 0
    while study.poll() is None:
        time.sleep(1)
        try:
            database = open_database(storage)
        except MiiiiSearchError:  # not there yet
            continue
        status = read_status(open_study(database, None))
        database.close()
        ended = sum(status.counts[name] for name in ("complete", "pruned"))
        length = min((len(trial.curve) for trial in status.running), default=0) + 2 * min(ended, 7)
        if len(status.running) >= 2 and length >= best:
            best = length
            (HERE / "watch.svg").write_text(draw(status), encoding="utf-8")


def draw(status: Status) -> str:
    """The renderable of `watch` as an SVG; the machine's name, which is nobody's business, is made up."""
    running = [replace(trial, worker=f"laptop:{trial.worker.rpartition(':')[2]}") for trial in status.running]
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ miiii-search watch", style="bold"))
    console.print(status_view(replace(status, running=running)))
    return console.export_svg(title="miiii-search watch", theme=MONOKAI, unique_id="watch")


def browse(environment: dict[str, str]) -> None:
    """Photographs the study's page."""
    dashboard = [*COMMAND, "dashboard", "--port", "0"]
    with subprocess.Popen(dashboard, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found is not None
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            with sync_playwright() as playwright:
                chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
                browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
                page = browser.new_page(viewport={"width": 1400, "height": 900})
                page.goto(found[0])
                picture = page.get_by_alt_text("Its learning curves")
                picture.wait_for()
                page.wait_for_function("picture => picture.naturalWidth > 0", arg=picture.element_handle())
                page.screenshot(path=HERE / "dashboard.png")
                browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
