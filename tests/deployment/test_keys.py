"""Passwords and certificates: made once, kept, and worth something to OpenSSL."""

from __future__ import annotations

import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509

from miiii_search.deployment import keys as module
from miiii_search.deployment.keys import OWN_NAMES, Keys, check_host, new_password, server_names
from miiii_search.errors import MiiiiSearchError


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys", tmp_path / "access")


def contents(keys: Keys) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for folder in (keys.keys, keys.access) for path in folder.iterdir()}


def is_trusted(keys: Keys, name: str) -> bool:
    """Whether OpenSSL, with our authority's certificate, trusts the server's for this name."""
    option = "-verify_ip" if name[0].isdigit() else "-verify_hostname"
    command = ["openssl", "verify", "-CAfile", str(keys.authority), "-purpose", "sslserver", option, name]
    return subprocess.run([*command, str(keys.keys / "server.crt")], capture_output=True).returncode == 0


def test_what_is_there_stays(keys: Keys) -> None:
    assert keys.prepare()
    before = contents(keys)
    assert set(before) == {"ca.key", "ca.crt", "server.key", "server.crt", "worker.url"}
    assert not keys.prepare()
    assert contents(keys) == before
    assert keys.prepare(["gpu1.lab"])
    after = contents(keys)
    assert {name for name in after if after[name] != before[name]} == {"server.key", "server.crt"}


def test_certificate_names_what_was_invited(keys: Keys) -> None:
    keys.prepare(["gpu1.lab"])
    keys.prepare(["10.0.0.7"])
    assert server_names(keys) == [*OWN_NAMES, "gpu1.lab", "10.0.0.7"]
    assert all(is_trusted(keys, name) for name in (*OWN_NAMES, "gpu1.lab", "10.0.0.7"))
    assert not is_trusted(keys, "gpu2.lab")


def test_certificates_of_another_authority_are_not_trusted(keys: Keys, tmp_path: Path) -> None:
    keys.prepare()
    other = Keys(tmp_path / "other", tmp_path / "other-access")
    other.prepare()
    other.authority.replace(keys.authority)
    assert not is_trusted(keys, "database")


def test_only_this_user_may_read(keys: Keys) -> None:
    keys.prepare()
    for path in [*keys.keys.iterdir(), *keys.access.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_private_keys_belong_to_their_certificates(keys: Keys) -> None:
    keys.prepare()
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(keys.keys / "server.crt", keys.keys / "server.key")


def test_url_of_the_worker(keys: Keys) -> None:
    keys.prepare()
    worker = sa.make_url(keys.worker_url.read_text().strip())
    assert worker.username == "worker"
    assert len(worker.password or "") >= 32
    assert dict(worker.query) == {"sslmode": "verify-full", "sslrootcert": str(keys.authority)}


def test_passwords_of_the_owner_that_earlier_versions_made_are_removed(keys: Keys) -> None:
    keys.prepare()
    for name in ("owner.url", "owner.password"):
        (keys.keys / name).write_text("obsolete")
    keys.prepare()
    assert not list(keys.keys.glob("owner.*"))


def test_certificate_is_renewed_in_time(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERVER_DAYS", 80)
    keys.prepare(["gpu1.lab"])
    monkeypatch.undo()
    assert keys.prepare()
    certificate = x509.load_pem_x509_certificate((keys.keys / "server.crt").read_bytes())
    assert certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=800)
    assert server_names(keys) == [*OWN_NAMES, "gpu1.lab"]


def test_without_the_authority_everything_is_signed_anew(keys: Keys) -> None:
    keys.prepare()
    keys.authority.unlink()
    assert keys.prepare()
    assert is_trusted(keys, "database")


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MiiiiSearchError, match="may this user write it"):
        Keys(tmp_path / "file" / "keys", tmp_path / "access").prepare()


@pytest.mark.parametrize(
    "host", ["", "a b", "http://a", "a:5432", "-a", "a-", "a..b", "x" * 64, "1.2.3", "ä.org", "a\nb"]
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(MiiiiSearchError, match="neither a host name nor an address"):
        check_host(host)


def test_passwords_differ_and_mean_themselves_everywhere() -> None:
    passwords = {new_password() for _ in range(100)}
    assert len(passwords) == 100
    assert all(len(p) >= 32 and p.replace("-", "a").replace("_", "a").isalnum() for p in passwords)


@pytest.mark.parametrize("lost", ["ca.key", "ca.crt"])
def test_an_authority_that_was_half_made_is_made_again(keys: Keys, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    keys.prepare()
    for folder in (keys.keys, keys.access):
        (folder / lost).unlink(missing_ok=True)
    write, written = module._write, list[Path]()

    def write_once(path: Path, text: str) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_write", write_once)
        keys.prepare()
    keys.prepare()
    assert all(is_trusted(keys, name) for name in OWN_NAMES)
