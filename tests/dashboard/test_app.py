"""The dashboard over HTTP: its pages, its refusals and its errors."""

import base64
import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
import pytest
import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study._frozen import FrozenStudy

from miiii_search.dashboard.app import make_application
from miiii_search.dashboard.auth import check_exposure, read_password
from miiii_search.dashboard.server import listen, serve
from miiii_search.errors import MiiiiSearchError
from miiii_search.testing.postgres import PostgresServer

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FOREIGN = "attacker.example:8080"
Serve = Callable[..., "Client"]


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client of one server that sends only the given headers and Host."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).netloc

    def __call__(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=600)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            content = b"" if body is None else json.dumps(body).encode()
            fixed = {"Host": self.address, "Content-Type": "application/json", "Content-Length": len(content)}
            for name, value in (fixed | {n.replace("_", "-"): v for n, v in headers.items()}).items():
                connection.putheader(name, str(value))
            connection.endheaders(content)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


@dataclass
class Fixture:
    """A study of three finished trials, the first of which has an image, and a running one."""

    study: optuna.Study
    storage: RDBStorage
    store: FileSystemArtifactStore
    image: Path
    artifact: str

    @property
    def artifact_path(self) -> str:
        return f"/artifacts/1/{self.study.trials[0]._trial_id}/{self.artifact}"

    def state(self) -> object:
        study = self.study
        trials = [(t.state, t.values, t.params, t.user_attrs, t.system_attrs) for t in study.get_trials()]
        return trials, study.user_attrs, self.storage.get_study_system_attrs(1), self.image.read_bytes()


def make_study(url: str, folder: Path) -> Fixture:
    (folder / "artifacts").mkdir()
    (folder / "curve.png").write_bytes(PNG)
    store = FileSystemArtifactStore(folder / "artifacts")
    storage = RDBStorage(url.replace("postgresql:", "postgresql+psycopg2:"))
    study = optuna.create_study(storage=storage, study_name="grokking")
    artifact = ""
    for number in range(3):
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        if number == 0:
            path = str(folder / "curve.png")
            artifact = upload_artifact(artifact_store=store, file_path=path, study_or_trial=trial)
        study.tell(trial, float(number))
    study.ask()
    return Fixture(study, storage, store, folder / "artifacts" / artifact, artifact)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Fixture]:
    fixture = make_study(f"sqlite:///{tmp_path}/study.db", tmp_path)
    yield fixture
    fixture.storage.engine.dispose()


@pytest.fixture
def start() -> Iterator[Serve]:
    """Return a function that serves an application until the test ends."""
    running = []

    def start(*args: Any, **options: Any) -> Client:
        server, url = listen(make_application(*args, **options), "127.0.0.1", 0)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        return Client(url)

    yield start
    for server, thread in running:
        # The server must close in its own thread. Otherwise it could close connections that are still written to.
        pulled = threading.Event()
        server.trigger.pull_trigger(lambda server=server, pulled=pulled: pulled.wait() and server.close())
        pulled.set()
        thread.join(600)
        server.task_dispatcher.shutdown()


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_page_studies_and_trials(data: Fixture, start: Serve) -> None:
    call = start(data.storage, data.store)
    page = call("/dashboard")
    assert page.status == 200 and b"Optuna Dashboard" in page.body
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    # A browser with the cached page of another process gets this one's.
    again = call("/dashboard", If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT")
    assert (again.status, again.body) == (200, page.body) and again.headers["Cache-Control"] == "no-cache"
    assert call("/").headers["Location"] == "/dashboard/studies/1/note"
    # Without Accept-Encoding, optuna-dashboard answers 500 for these two.
    assert len(call("/static/bundle.js").body) > 10**6
    assert call("/favicon.ico").status == 200
    studies = call("/api/studies").json["study_summaries"]
    assert [study["study_name"] for study in studies] == ["grokking"]
    study = call("/api/studies/1").json
    assert [trial["state"] for trial in study["trials"]] == ["Complete"] * 3 + ["Running"]
    assert [artifact["filename"] for artifact in study["trials"][0]["artifacts"]] == ["curve.png"]
    assert call("/csv/1").body.startswith(b"Number,State,Value,Param learning_rate")
    missing = call("/api/studies/7")
    assert (missing.status, missing.json) == (404, {"reason": "study_id=7 is not found"})


def test_artifact(data: Fixture, start: Serve) -> None:
    image = start(data.storage, data.store)(data.artifact_path)
    assert (image.status, image.headers["Content-Type"], image.body) == (200, "image/png", PNG)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("image/png", True),
        ("image/svg+xml", True),
        ("text/csv", True),
        ("text/plain; charset=utf-8", True),
        ("application/json", True),
        ("application/jsonl", True),
        ("text/html", False),
        ("Text/HTML; charset=utf-8", False),
        ("application/xhtml+xml", False),
        ("text/xml", False),
        ("application/pdf", False),
        ("application/octet-stream", False),
        ("", False),
    ],
)
def test_an_artifact_is_never_a_page(data: Fixture, start: Serve, tmp_path: Path, kind: str, shown: bool) -> None:
    """Check artifacts of a trial and of the study, with all media types."""
    path = tmp_path / "page.html"
    path.write_text("<script>alert(1)</script>")
    call = start(data.storage, data.store)
    trial = optuna.trial.Trial(data.study, data.study.trials[3]._trial_id)
    for owner, prefix in ((trial, f"/artifacts/1/{trial._trial_id}"), (data.study, "/artifacts/1")):
        key = upload_artifact(artifact_store=data.store, file_path=str(path), study_or_trial=owner, mimetype=kind)
        answer = call(f"{prefix}/{key}")
        assert (answer.status, answer.body) == (200, path.read_bytes())
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"].split(";")
        assert answer.headers.get_all("Content-Disposition") == (None if shown else ["attachment"])
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_several_studies_open_with_their_list(data: Fixture, start: Serve) -> None:
    optuna.create_study(storage=data.storage, study_name="another")
    assert start(data.storage, data.store)("/").headers["Location"] == "/dashboard"


def test_dangling_artifact_is_not_found(data: Fixture, start: Serve) -> None:
    data.image.unlink()
    call = start(data.storage, data.store)
    image = call(data.artifact_path)
    assert image.status == 404 and "bytes are not in the artifact store" in image.json["reason"]
    assert call(f"/artifacts/1/99/{data.artifact}").status == 404
    assert call(f"/artifacts/99/{data.artifact}").status == 404


def test_finished_trials_are_read_once(data: Fixture, start: Serve) -> None:
    call, artifact = start(data.storage, data.store), data.artifact_path
    call("/api/studies/1")
    statements: list[str] = []
    sa.event.listen(data.storage.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert call(artifact).status == 200
    # At most one trial is read, to distinguish a study from a later one with the same id.
    assert statements and not [
        text for text in statements if re.search(r"FROM trials(?! AS first_trial)\b|FROM trial_", text)
    ]


WRITES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/api/trials/4/tell", {"state": "Complete", "values": [0.0]}),
    ("POST", "/api/trials/4/user-attrs", {"user_attrs": {"a": 1}}),
    ("PUT", "/api/studies/1/note", {"version": 1, "body": "text"}),
    ("PUT", "/api/studies/1/4/note", {"version": 1, "body": "text"}),
    ("POST", "/api/artifacts/1/4", {"file": "data:text/plain;base64,YQ==", "filename": "a.txt"}),
    ("POST", "/api/studies/1/rename", {"study_name": "other"}),
    ("DELETE", "/api/artifacts/1/1/{artifact}", None),
    ("DELETE", "/api/studies/1", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_write(data: Fixture, start: Serve, method: str, path: str, body: Any) -> None:
    path, before = path.format(artifact=data.artifact), data.state()
    refused = start(data.storage, data.store)(path, method, body)
    assert (refused.status, list(refused.json)) == (403, ["reason"])
    assert "read-only" in refused.json["reason"]
    assert data.state() == before
    # The same request succeeds if writes are allowed, so it was not refused for being malformed.
    accepted = start(data.storage, data.store, writable=True)(path, method, body)
    # The dashboard removes the bytes of a finished trial's artifact and then fails to change the trial.
    assert accepted.status in ((500,) if "/artifacts/1/1/" in path else (200, 201))
    assert data.image.exists() == (method != "DELETE")


def test_other_methods_are_refused(data: Fixture, start: Serve) -> None:
    call = start(data.storage, data.store)
    assert [call("/api/studies", method).status for method in ("PATCH", "TRACE", "BREW")] == [403] * 3
    assert call("/healthz", "POST").status == 403
    head = call("/api/studies", "HEAD")
    assert (head.status, head.body) == (200, b"")


def test_writable_completes_a_trial(data: Fixture, start: Serve) -> None:
    call = start(data.storage, data.store, writable=True)
    told = call("/api/trials/4/tell", "POST", {"state": "Complete", "values": [0.25]})
    # The dashboard's page parses every response as JSON, so 200 is sent in place of its server's 204.
    assert (told.status, told.json) == (200, {})
    assert data.study.trials[3].values == [0.25]
    assert call("/api/trials/4/tell", "POST", {}).json == {"reason": "state must be specified."}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site", "Origin": "http://{host}"}, 403),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://{host}"}, 200),
        ({"Sec_Fetch_Site": "same-origin", "Origin": "https://proxy.example"}, 200),
    ],
)
def test_write_from_another_site(data: Fixture, start: Serve, headers: dict[str, str], status: int) -> None:
    call = start(data.storage, data.store, writable=True)
    headers = {name: value.format(host=call.address) for name, value in headers.items()}
    assert call("/api/studies/1/note", "PUT", {"version": 1, "body": ""}, **headers).status == status
    assert call("/api/studies", **headers).status == 200


def test_password(data: Fixture, start: Serve) -> None:
    call = start(data.storage, data.store, password="grøk:1")
    for authorization in ("", "Basic", "Basic ?", basic(""), basic("grøk"), "Bearer " + basic("grøk:1")[6:]):
        for path in ("/dashboard", "/api/studies", data.artifact_path, "/static/bundle.js"):
            refused = call(path, Authorization=authorization)
            assert (refused.status, list(refused.json)) == (401, ["reason"])
            assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
    for user in ("", "anyone"):
        assert call("/api/studies", Authorization=basic("grøk:1", user)).status == 200
    # With the password, any host name is accepted. It does not permit writes.
    assert call("/api/studies", Authorization=basic("grøk:1"), Host=FOREIGN).status == 200
    assert call("/api/studies/1", "DELETE", Authorization=basic("grøk:1")).status == 403
    assert call("/healthz").status == 200


@pytest.mark.parametrize("host", [FOREIGN, "", "localhost.attacker.example", "10.0.0.1", "127.0.0.1.nip.io", "[:"])
@pytest.mark.parametrize("password", [None, ""])
def test_foreign_host(data: Fixture, start: Serve, host: str, password: str | None) -> None:
    call = start(data.storage, data.store, password=password)
    for path in ("/dashboard", "/api/studies", data.artifact_path, "/healthz"):
        refused = call(path, Host=host)
        assert refused.status == 403 and f"{host!r} is not this machine" in refused.json["reason"]


@pytest.mark.parametrize("host", ["localhost", "LocalHost:80", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080"])
def test_own_host(data: Fixture, start: Serve, host: str) -> None:
    assert start(data.storage, data.store)("/api/studies", Host=host).status == 200


def test_healthz(data: Fixture, start: Serve) -> None:
    call = start(data.storage, data.store)
    health = call("/healthz")
    assert (health.status, health.json) == (200, {"status": "ok"})
    with socket.create_connection(("127.0.0.1", int(call.address.rpartition(":")[2]))) as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head = connection.makefile("rb").read()
    assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n")
    with data.storage.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE studies"))
    assert call("/healthz").status == 503


@pytest.mark.postgres
def test_database_outage(tmp_path: Path, start: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with PostgresServer() as server:
        url = server.create_database()
        data = make_study(url, tmp_path)
        call, artifact = start(data.storage, data.store), data.artifact_path
        paths = ("/healthz", "/api/studies", "/api/studies/1", artifact, "/csv/1")
        assert [call(path).status for path in paths] == [200] * 5
        server.stop("immediate")
        for path in paths:
            answer = call(path)
            assert (answer.status, list(answer.json)) == (503, ["reason"])
            assert re.fullmatch(r"The study storage does not answer: [^\n]+\.", answer.json["reason"])
        assert call("/dashboard").status == 200
        password = urlsplit(url).password
        assert password and "OperationalError" in caplog.text and password not in caplog.text
        server.start()
        assert [call(path).status for path in paths] == [200] * 5
        data.storage.engine.dispose()


class Down(InMemoryStorage):
    def get_all_studies(self) -> list[FrozenStudy]:
        raise optuna.exceptions.StorageInternalError("no route to postgresql://me:pass:w@rd@host/db")


def test_failure_hides_a_password(start: Serve, caplog: pytest.LogCaptureFixture) -> None:
    answer = start(Down(), None)("/api/studies")
    assert answer.status == 503 and b"rd" not in answer.body.replace(b"dashboard", b"")
    assert "no route to postgresql://***@host/db" in caplog.text and "rd@" not in caplog.text


def test_unexpected_failure_is_logged(data: Fixture, start: Serve, caplog: pytest.LogCaptureFixture) -> None:
    answer = start(data.storage, data.store)("/api/studies/1?after=x")
    assert (answer.status, list(answer.json)) == (500, ["reason"])
    assert "GET /api/studies/1" in caplog.text and "ValueError" in caplog.text


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            MiiiiSearchError, match=rf"^Cannot .* port {port} of `127.0.0.1` \(Address already .*--port.*$"
        ):
            serve(lambda *_: [], "127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "cause"),
    [
        ("127.0.0.1", 65_536, "not between 0 and 65535"),
        ("127.0.0.1", -1, "not between 0 and 65535"),
        ("192.0.2.1", 0, "Cannot assign requested address"),
        ("no-such-host.invalid", 0, ".+"),
    ],
)
def test_address_that_cannot_be_had(host: str, port: int, cause: str) -> None:
    message = rf"^Cannot listen on port {port} of `{host}` \({cause}\): .*--port.*--host$"
    with pytest.raises(MiiiiSearchError, match=message):
        listen(lambda *_: [], host, port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.org"])
def test_exposure_needs_a_password(host: str) -> None:
    for password in (None, ""):
        with pytest.raises(MiiiiSearchError) as error:
            check_exposure(host, password)
        where = f"`{host}`" if host else "every address of this machine"
        assert str(error.value) == (
            f"The dashboard would be open to the network on {where}: "
            "set MIIII_DASHBOARD_PASSWORD or MIIII_DASHBOARD_PASSWORD_FILE, or use --host 127.0.0.1"
        )
    check_exposure(host, "secret")
    check_exposure(host, None, "127.0.0.1:8080")
    check_exposure("0.0.0.0", None, "[::1]:8080")
    for published in ("0.0.0.0:8080", "8080", "10.0.0.7:80", ":8080"):
        with pytest.raises(MiiiiSearchError, match="publish it at"):
            check_exposure(host, None, published)
        check_exposure(host, "secret", published)


def test_password_of_a_file(tmp_path: Path) -> None:
    """Check a password from a file, as containers get secrets: spaces belong to it, the line end does not."""
    file = tmp_path / "password"
    file.write_text(" grøk:1 \n", encoding="utf-8")
    variable = "MIIII_DASHBOARD_PASSWORD"
    assert read_password({f"{variable}_FILE": str(file)}) == " grøk:1 "
    # Compose passes an unset variable as an empty one.
    assert read_password({variable: "", f"{variable}_FILE": str(file)}) == " grøk:1 "
    assert read_password({variable: "other", f"{variable}_FILE": ""}) == "other"
    assert read_password({}) is None and read_password({variable: "", f"{variable}_FILE": ""}) is None


@pytest.mark.parametrize(
    ("content", "password", "message"),
    [
        (None, None, r"cannot be read from .* \(No such file or directory\): correct MIIII_DASHBOARD_PASSWORD_FILE"),
        (b"\xff", None, r"\(not UTF-8\)"),
        (b"\n", None, r"is empty: write the password into it$"),
        (b"secret", "secret", r"are both set"),
    ],
)
def test_password_that_cannot_be_had(tmp_path: Path, content: bytes | None, password: str | None, message: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    variable = "MIIII_DASHBOARD_PASSWORD"
    with pytest.raises(MiiiiSearchError, match=message):
        read_password({variable: password or "", f"{variable}_FILE": str(file)})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "LocalHost", "::1", "[::1]"])
def test_loopback_needs_no_password(host: str) -> None:
    check_exposure(host, None)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_serve(number: signal.Signals) -> None:
    program = """
        import signal, sys
        import optuna
        from miiii_search.dashboard.app import make_application
        from miiii_search.dashboard.server import serve
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job may ignore it
        before = signal.getsignal(signal.SIGTERM)
        app = make_application(optuna.storages.InMemoryStorage(), None)
        serve(app, "127.0.0.1", 0, lambda url: print(url, flush=True))
        assert signal.getsignal(signal.SIGTERM) is before
        print("returned without JAX" if "jax" not in sys.modules else "JAX was imported")
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        url = run.stdout.readline().strip()
        try:
            with urllib.request.urlopen(url + "healthz", timeout=600) as answer:
                assert json.load(answer) == {"status": "ok"}
            run.send_signal(number)
            assert run.communicate(timeout=600) == ("returned without JAX\n", "")
            assert run.returncode == 0
        finally:
            run.kill()


ROOT = "/optuna"


def test_below_a_root_path(data: Fixture, start: Serve) -> None:
    """Check requests with the root path, and without it, as some proxies remove it."""
    call = start(data.storage, data.store, root_path=f"{ROOT}/")
    for prefix in ("", ROOT):
        assert call(f"{prefix}/").headers["Location"] == f"{ROOT}/dashboard/studies/1/note"
        page = call(f"{prefix}/dashboard/studies/1").body.decode()
        [script] = re.findall(r'<script defer src="([^"]+)"', page)
        assert script.startswith(f"{ROOT}/static/bundle.js?") and f'href="{ROOT}/favicon.ico"' in page
        for path in (
            script.removeprefix(ROOT),
            "/favicon.ico",
            "/api/studies/1",
            data.artifact_path,
            "/csv/1",
            "/healthz",
        ):
            assert call(prefix + path).status == 200, path
    assert call(ROOT).headers["Location"] == f"{ROOT}/dashboard/studies/1/note"
    assert call("/optunas/dashboard").status == 404
    plain, packed = call(script), call(script, Accept_Encoding="gzip")
    assert gzip.decompress(packed.body) == plain.body and packed.headers["Content-Encoding"] == "gzip"
    assert call(script, "HEAD").body == b""
    # No path in the script leads out of the root path.
    assert not re.search(rb"[`\"'](/dashboard\b|/api/|/artifacts/|/csv/|/static/|\$\{this.baseURL\})", plain.body)


def test_links_of_notes_below_a_root_path(data: Fixture, start: Serve) -> None:
    """Check that the database does not hold the root path, which other dashboards may not share."""
    stored = "[Trial](/dashboard/studies/1/trials) ![Curve](/artifacts/1/1/a) [other](https://a.example/dashboard/)"
    call = start(data.storage, data.store, root_path=ROOT, writable=True)
    assert call("/api/studies/1/note", "PUT", {"version": 1, "body": stored}).status == 200
    shown = call("/api/studies/1").json["note"]["body"]
    assert shown == stored.replace("(/", f"({ROOT}/")
    assert call("/api/studies/1/note", "PUT", {"version": 2, "body": f"{shown} Edited."}).status == 200
    assert start(data.storage, data.store)("/api/studies/1").json["note"]["body"] == f"{stored} Edited."


@pytest.mark.parametrize(
    "path", ["optuna", "/a b", "/a//b", "/../a", "/a?b", '/"><script>', "https://a.example/b", "//a"]
)
def test_no_root_path(path: str) -> None:
    with pytest.raises(MiiiiSearchError, match="--root-path must be a path such as /optuna"):
        make_application(InMemoryStorage(), None, root_path=path)


def test_attributes_and_numbers_are_for_reading(data: Fixture, start: Serve) -> None:
    third = 0.004999999888241291
    study = optuna.create_study(storage=data.storage, study_name="long", direction="maximize")
    trial = study.ask()
    trial.report(third, 1)
    attributes = {
        "by_task": {"2": third, "3": 1.0},
        "long": [0.1] * 28 + [third],
        "short": [1, 2.5],
        "words": ["a"] * 9,
        "none": None,
        "text": '{"a": 1}',
        "yes": True,
        "seconds": 1 / 3,
    }
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
    study.tell(trial, 1.2000000476837158)
    [shown] = start(data.storage, data.store)(f"/api/studies/{study._study_id}").json["trials"]
    assert (shown["values"], shown["intermediate_values"]) == ([1.2], [{"step": 1, "value": 0.005}])
    assert {row["key"]: row["value"] for row in shown["user_attrs"]} == {
        "by_task": "2 0.005, 3 1",
        "long": "[29 values from 0.005 to 0.1]",
        "short": "[1, 2.5]",
        "words": "[9 values]",
        "none": "null",
        "text": '{"a": 1}',
        "yes": "true",
        "seconds": "0.3333333",
    }
    assert study.trials[0].user_attrs == attributes and study.trials[0].value == 1.2000000476837158
