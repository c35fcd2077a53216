"""The dashboard in a real browser: what a visitor sees, and what the page's own script may do."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from miiii_search.coordinator.dashboard_note import StudyNote
from miiii_search.experiment.spec import Experiment
from miiii_search.storage.artifacts import LEARNING_CURVES as CURVES
from miiii_search.storage.artifacts import Artifact
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.testing.processes import TINY, Processes, wait_for
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from tests.support import claim, make_spec, metrics_of

NAMES = ("chromium", "chromium-browser", "google-chrome")
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
WAIT_MS = 60_000
"""For whatever is waited for: a browser beside training on two cores is slow."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser here: none of {', '.join(NAMES)} is on the PATH"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Chromium's own sandbox does not start as root, nor in most containers.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[Processes]:
    processes = Processes(folder)
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def storage(started: Processes, folder: Path) -> str:
    """A study that has ended, as `up` leaves it."""
    storage = f"sqlite:///{folder}/study.db"
    started.run("up", "--preset", "demo", "--no-dashboard", *TINY, "--trials", "2", storage=storage)
    return storage


def serve(processes: Processes, storage: str, password: str = "", root_path: str = "") -> str:
    """The address of a dashboard of its own process."""
    processes.environment |= {"MIIII_DASHBOARD_PASSWORD": password, "MIIII_DASHBOARD_ROOT_PATH": root_path}
    process = processes.start("dashboard", "--port", "0", storage=storage)
    return str(wait_for(lambda: re.search(r"dashboard: (http://\S+)/", processes.log(process)))[1])


@pytest.fixture(scope="module")
def address(started: Processes, storage: str) -> str:
    return serve(started, storage)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(base_url=address)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors


def test_a_visitor_comes_to_the_study_s_note(page: Page) -> None:
    page.goto("/")
    page.get_by_role("heading", name="Done").wait_for()
    assert page.url.endswith("/dashboard/studies/1/note")
    note = page.locator("body")
    assert "of 2 trials." in note.inner_text()
    assert "miiii-search best --study demo --out best.toml" in note.inner_text()
    picture = page.get_by_alt_text("Its learning curves")
    page.wait_for_function("picture => picture.complete", arg=picture.element_handle())
    assert picture.evaluate("picture => picture.naturalWidth") > 0
    page.get_by_role("link", name=re.compile(r"^Trial \d+$")).click()
    page.wait_for_url("**/dashboard/studies/1/trials?numbers=*")


def test_the_list_leads_to_the_study_with_its_history(page: Page) -> None:
    page.goto("/dashboard")
    page.get_by_role("link", name=re.compile("demo")).click()
    page.wait_for_url("**/dashboard/studies/1")
    page.get_by_role("heading", name="Hyperparameter Importance").wait_for()
    page.locator(".js-plotly-plot .scatterlayer .point").first.wait_for(state="attached")


def test_a_trial_has_its_note_and_its_picture(page: Page) -> None:
    page.goto("/dashboard/studies/1/trials?numbers=1")
    page.get_by_text(re.compile(r"^Trial 1 (was not solved|solved every task)")).wait_for()
    picture = page.locator("img[src^='/artifacts/1/']").first
    picture.wait_for(state="attached")
    page.wait_for_function("picture => picture.complete", arg=picture.element_handle())
    assert picture.evaluate("picture => picture.naturalWidth") > 0


def test_an_analyzed_trial_has_its_figures(page: Page, started: Processes, storage: str) -> None:
    """Its page was made before they were."""
    page.goto("/dashboard/studies/1/trials?numbers=0")
    page.get_by_text(re.compile(r"^Trial 0 (was not solved|solved every task)")).wait_for()
    pictures = page.locator("img[src^='/artifacts/1/']")
    pictures.first.wait_for(state="attached")
    before = pictures.count()
    said = started.run("analyze", "--study", "demo", "--trial", "0", "--out", "analyzed", storage=storage)
    assert "the figures are on the page of trial 0 in the dashboard" in said
    figures = len(list((started.folder / "analyzed").glob("*.png")))
    assert figures > 10
    page.reload()
    pictures.nth(before + figures - 1).wait_for(state="attached")
    assert pictures.count() == before + figures
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    widths = pictures.evaluate_all("pictures => pictures.map(picture => picture.naturalWidth)")
    assert min(widths) > 100
    page.get_by_text("report.html").first.wait_for(state="attached")


@pytest.fixture(scope="module")
def report(started: Processes, folder: Path) -> Path:
    """The page of a run that `train` and `analyze` made."""
    settings = ("--set", "experiment.solved_evaluations=100", "--set", "experiment.epochs=320")
    started.run("train", "--preset", "demo", *TINY, *settings, "--out", "run", storage="")
    started.run("analyze", "run", storage="")
    return folder / "run" / "analysis" / "report.html"


def test_a_report_is_whole_without_a_network(browser: Browser, report: Path) -> None:
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 900})
    context.set_default_timeout(WAIT_MS)
    page, complaints, asked = context.new_page(), list[str](), list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri(), wait_until="load")
    assert page.title() == "What run learned"
    headings = [page.get_by_role("heading", level=2).nth(k).inner_text() for k in range(5)]
    assert headings == ["Training", "Embeddings", "Neurons and attention", "Circuits", "The task"]
    figures = page.get_by_role("heading", level=3).count()
    widths = page.locator("img").evaluate_all("pictures => pictures.map(picture => picture.naturalWidth)")
    assert len(widths) == figures == len(list(report.parent.glob("*.png"))) > 15 and min(widths) > 300
    # Nothing is wider than the window, and each link goes to its section.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("link", name="Circuits").click()
    assert page.get_by_role("heading", name="Circuits", exact=True).bounding_box()["y"] < 900  # type: ignore[index]
    # The figures are to be seen, in colours of many, and so are the words.
    seen = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    colours, counts = np.unique(np.asarray(seen).reshape(-1, 3), axis=0, return_counts=True)
    assert seen.height > 5000 and len(colours) > 1000 and counts.max() < 0.95 * counts.sum()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    context.close()


def test_the_page_s_own_writes_are_refused(page: Page) -> None:
    page.goto("/dashboard")
    request = "([path, method]) => fetch(path, {method, body: '{}'}).then(a => a.json().then(b => [a.status, b]))"
    for path, method in (("/api/studies/1/note", "PUT"), ("/api/trials/1/tell", "POST"), ("/api/studies/1", "DELETE")):
        status, body = page.evaluate(request, [path, method])
        assert status == 403 and "read-only" in body["reason"]


def test_another_site_s_page_reads_nothing(page: Page, browser: Browser, address: str) -> None:
    """Nor one that has its own name resolve to this machine."""
    port = address.rpartition(":")[2]
    page.goto("about:blank")
    outcome = page.evaluate("url => fetch(url).then(() => 'read', () => 'refused')", f"{address}/api/studies")
    assert outcome == "refused"
    context = browser.new_context()
    own = context.new_page()
    answer = own.goto(f"http://127.0.0.1.attacker.localhost:{port}/api/studies", timeout=WAIT_MS)
    assert answer is not None and answer.status == 403
    context.close()


def test_the_password_is_asked_for(browser: Browser, started: Processes, storage: str) -> None:
    address = serve(started, storage, password="grøk:1")
    stranger = browser.new_context(base_url=address)
    assert stranger.request.get("/dashboard").status == 401
    stranger.close()
    for password, status in (("wrong", 401), ("grøk:1", 200)):
        context = browser.new_context(base_url=address, http_credentials={"username": "any", "password": password})
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        answer = page.goto("/dashboard/studies/1/note")
        assert answer is not None and answer.status == status
        if status == 200:
            # The page's own requests, and its pictures, bring the password along.
            page.get_by_role("heading", name="Done").wait_for()
        context.close()


@pytest.fixture(scope="module")
def tasks(folder: Path) -> str:
    """A study of 29 tasks, one trial of which has ended and one runs; nothing of it was trained."""
    storage = f"sqlite:///{folder}/tasks.db"
    database = open_database(storage, create=True)
    study = create_study(database, "tasks", make_spec(experiment=Experiment(p=113, task="miiii")))
    number, picture = 0.004999999888241291, io.BytesIO()
    Image.new("RGB", (400, 200), "blue").save(picture, "PNG")
    per_task = {str(q): number for q in study.spec.experiment.task_moduli}
    known = {"validation_accuracy": per_task, "metrics": metrics_of(study, number)}
    ended = TrialResult(
        TrialState.COMPLETE, number, "Trial 0 was not solved.", known, [Artifact(CURVES, picture.getvalue())]
    )
    assert study.queue.finish(Heartbeat(claim(study), 1, 1.0), ended) == FinishStatus.WRITTEN
    StudyNote(study).refresh(done=True)
    claim(study)
    database.close()
    return storage


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def proxy(started: Processes, tasks: str, folder: Path) -> Iterator[str]:
    """The address of an nginx with two dashboards: it passes on the path /optuna/, and takes /team/optuna/ away."""
    assert NGINX is not None
    upstream = serve(started, tasks, "grøk:1", "/optuna")
    stripped = serve(started, tasks, "grøk:1", "/team/optuna")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kinds = ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr; events {{}}
        http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port};
            location /optuna/ {{ proxy_pass {upstream.removesuffix("/optuna")}; proxy_set_header Host $http_host; }}
            location /team/optuna/ {{ proxy_pass {stripped.removesuffix("/team/optuna")}/; }}
        }} }}
    """)
    command = [NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: process.poll() is not None or listens(port))
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.mark.skipif(NGINX is None, reason="no nginx here")
@pytest.mark.parametrize("root", ["/optuna", "/team/optuna"])
def test_a_visitor_behind_a_proxy(browser: Browser, proxy: str, root: str) -> None:
    """Below a path, with the password: links, redirects, pictures, the table's file, and the page's own routes."""
    credentials = {"username": "any", "password": "grøk:1"}
    context = browser.new_context(base_url=proxy, http_credentials=credentials)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MS)
    page, asked, failed = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(f"{root}/")
    page.get_by_role("heading", name="Done").wait_for()
    assert page.url == f"{proxy}{root}/dashboard/studies/1/note"
    picture = page.get_by_alt_text("Its learning curves")
    page.wait_for_function("picture => picture.complete", arg=picture.element_handle())
    assert picture.evaluate("picture => picture.naturalWidth") > 0
    page.get_by_role("link", name=re.compile(r"^Trial \d+$")).click()
    page.wait_for_url(f"**{root}/dashboard/studies/1/trials?numbers=*")
    for _ in range(2):  # by the page's own routes, and by an address that was copied
        page.get_by_text("Trial 0 was not solved.").first.wait_for()
        picture = page.locator(f"img[src^='{root}/artifacts/1/']").first
        picture.wait_for(state="attached")
        page.wait_for_function("picture => picture.complete", arg=picture.element_handle())
        assert picture.evaluate("picture => picture.naturalWidth") > 0
        page.reload()
    page.goto(f"{root}/dashboard")
    page.get_by_role("link", name=re.compile("tasks")).click()
    page.wait_for_url(f"**{root}/dashboard/studies/1")
    page.get_by_role("heading", name="Hyperparameter Importance").wait_for()
    assert context.request.get(f"{root}/csv/1").text().startswith("Number,State")
    assert [url for url in asked if not url.startswith((f"{proxy}{root}/", "data:", "blob:"))] == []
    assert failed == []
    context.close()
    stranger = browser.new_context(base_url=proxy)
    assert stranger.request.get(f"{root}/dashboard").status == 401
    stranger.close()


@pytest.fixture(scope="module")
def many_tasks(started: Processes, tasks: str) -> str:
    """The address of a read-only dashboard of that study."""
    return serve(started, tasks)


PAGES = {
    "/dashboard": "text=1. tasks",
    "/dashboard/studies/1": "text=Hyperparameter Importance",
    "/dashboard/studies/1/analytics": ".js-plotly-plot",
    "/dashboard/studies/1/trials?numbers=0": "text=Trial 0 (trial_id=1)",
    "/dashboard/studies/1/note": "text=What is searched",
    "/dashboard/compare-studies?ids=1": "text=1. tasks",
}
"""Paths of the page, and what is there once each has been drawn."""


@pytest.mark.parametrize("width", [1400, 420])
def test_pages_are_as_wide_as_the_window(browser: Browser, many_tasks: str, width: int) -> None:
    context = browser.new_context(base_url=many_tasks, viewport={"width": width, "height": 900})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    for path, drawn in PAGES.items():
        page.goto(path)
        page.locator(drawn).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.goto("/dashboard/studies/1/trials?numbers=0")
    page.get_by_text("validation_accuracy 2 0.005, 3 0.005").wait_for()
    assert "0.00499999" not in page.locator("body").inner_text()
    context.close()


WRITING = {
    "/dashboard": ["[aria-label='delete study']", "[aria-label='rename study']", "text=Create"],
    "/dashboard/studies/1": ["text=Upload a New File"],
    "/dashboard/studies/1/note": ["[data-testid='EditIcon']"],
    "/dashboard/studies/1/trials?numbers=1": ["text=Fail Trial", "[data-testid='EditIcon']", "text=Upload a New File"],
}
"""Buttons that write something, by the path of their page."""


def test_a_read_only_dashboard_has_no_buttons_that_write(
    browser: Browser, started: Processes, many_tasks: str, tasks: str
) -> None:
    writable = started.start("dashboard", "--port", "0", "--writable", storage=tasks)
    address = str(wait_for(lambda: re.search(r"dashboard: (http://\S+)/", started.log(writable)))[1])
    for base, visible in ((many_tasks, False), (address, True)):
        context = browser.new_context(base_url=base, viewport={"width": 1400, "height": 900})
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        for path, buttons in WRITING.items():
            page.goto(path)
            for button in buttons:
                found = page.locator(f"main >> {button}").first
                found.wait_for(state="visible" if visible else "attached")
                assert found.is_visible() == visible, (path, button)
        context.close()
