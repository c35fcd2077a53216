"""Passwords and certificates of an installation of containers, kept in two folders.

The folder `keys` holds the secrets: the authority's key and the server's key. The folder `access` holds what a
worker on this machine may read: the authority's certificate and a storage URL with the worker's password. The owner
of the database has no password. It connects through a Unix socket that only the coordinator's container shares.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from miiii_search.errors import MiiiiSearchError
from miiii_search.files import write_file
from miiii_search.storage.urls import postgres_url

OWN_NAMES = ("database", "localhost", "127.0.0.1")
"""Host names of the database server for the other containers and on its own machine."""

LOCAL_WORKER, DATABASE = "worker", "miiii"

AUTHORITY_DAYS, SERVER_DAYS, RENEWAL_DAYS = 3650, 825, 90


@dataclass(frozen=True)
class Keys:
    """The two folders of keys. All containers mount `access` at the same path, so URLs may name it."""

    keys: Path
    """Folder of the secrets, for the coordinator and the database alone."""
    access: Path
    """Folder that the workers on this machine may read."""

    @property
    def authority(self) -> Path:
        """Certificate of the authority, which every client needs."""
        return self.access / "ca.crt"

    @property
    def authority_key(self) -> Path:
        """Key that signs the server's certificate."""
        return self.keys / "ca.key"

    @property
    def worker_url(self) -> Path:
        """File with the storage URL of the workers on this machine."""
        return self.access / "worker.url"

    def prepare(self, names: Iterable[str] = ()) -> bool:
        """Create the keys that are missing, and keep those that exist.

        Args:
            names: Host names and addresses to add to the server's certificate. Names that it had before stay.

        Returns:
            True if the server's certificate was created anew.

        Raises:
            MiiiiSearchError: The folders cannot be written.
        """
        try:
            self.keys.mkdir(parents=True, exist_ok=True)
            self.access.mkdir(parents=True, exist_ok=True)
            if not self.authority_key.exists() or not self.authority.exists():
                self._create_authority()
            if not self.worker_url.exists():
                url = storage_url(LOCAL_WORKER, new_password(), "database", self.authority)
                _write(self.worker_url, url + "\n")
            for obsolete in ("owner.url", "owner.password"):  # written by earlier versions
                (self.keys / obsolete).unlink(missing_ok=True)
            return self._create_certificate(names)
        except OSError as error:
            raise MiiiiSearchError(
                f"cannot keep keys in {error.filename}: {error.strerror}; may this user write it?"
            ) from None

    def _create_authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("miiii-search authority")
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            _builder(name, name, key.public_key(), AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        for old in ("server.crt", "ca.key"):  # signed by, or belonging to, the old certificate
            (self.keys / old).unlink(missing_ok=True)
        _write(self.authority, certificate.public_bytes(serialization.Encoding.PEM).decode())
        # Written last: a key that exists always belongs to the certificate.
        _write(self.authority_key, _pem(key))

    def _create_certificate(self, names: Iterable[str]) -> bool:
        path = self.keys / "server.crt"
        known = x509.load_pem_x509_certificate(path.read_bytes()) if path.exists() else None
        before = _names_of(known) if known else []
        wanted = list(dict.fromkeys([*OWN_NAMES, *before, *names]))
        fresh = known is not None and known.not_valid_after_utc - datetime.now(UTC) > timedelta(RENEWAL_DAYS)
        if fresh and wanted == before and (self.keys / "server.key").exists():
            return False
        authority = x509.load_pem_x509_certificate(self.authority.read_bytes())
        authority_key = serialization.load_pem_private_key(self.authority_key.read_bytes(), None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name("miiii-search database"), authority.subject, key.public_key(), SERVER_DAYS)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in wanted]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False)
            .sign(authority_key, hashes.SHA256())
        )
        _write(self.keys / "server.key", _pem(key))
        # Written last: a certificate that exists always has its key.
        _write(path, certificate.public_bytes(serialization.Encoding.PEM).decode())
        return True


def storage_url(role: str, password: str, host: str, authority: Path, port: int = 5432) -> str:
    """Return a URL that connects by TLS only, and only to the server that the authority signed for `host`."""
    options = {"sslmode": "verify-full", "sslrootcert": str(authority)}
    return postgres_url(role, password, host, port, DATABASE, options)


def new_password() -> str:
    """Return a random password that needs no quoting in URLs, shells and Compose files."""
    return secrets.token_urlsafe(24)


def server_names(keys: Keys) -> list[str]:
    """Return the host names and addresses in the server's certificate."""
    return _names_of(x509.load_pem_x509_certificate((keys.keys / "server.crt").read_bytes()))


def check_host(host: str) -> str:
    """Return `host` if a certificate can name it.

    Raises:
        MiiiiSearchError: It is neither a host name nor an IP address.
    """
    try:
        _general_name(host)
    except ValueError:
        raise MiiiiSearchError(
            f"`{host}` is neither a host name nor an address; give one, without port and scheme"
        ) from None
    return host


def _names_of(certificate: x509.Certificate) -> list[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.split(".")
    if len(name) > 253 or not all(_is_label(label) for label in labels) or labels[-1].isdecimal():
        raise ValueError(name)
    return x509.DNSName(name)


def _is_label(label: str) -> bool:
    plain = label.replace("-", "a").replace("_", "a")
    return 0 < len(label) < 64 and plain.isascii() and plain.isalnum() and label[0] != "-" != label[-1]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of other machines may be slow
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _write(path: Path, text: str) -> None:
    """Write a file atomically, readable by this user only."""
    write_file(path, text, private=True)
