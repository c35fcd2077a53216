"""The passwords and certificates of an installation, in two folders: what there is stays, what is missing is made.

`keys` holds what is secret: the authority's key and the server's key. `access` holds what a worker of this machine may
read: the authority's certificate and the worker's way to the database. The database's owner has no password: it
connects by a Unix socket that only the coordinator's container shares.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from miiii_search.errors import MiiiiSearchError
from miiii_search.files import write_file

OWN_NAMES = ("database", "localhost", "127.0.0.1")
"""What the server is called by the other containers, and on its own machine."""

LOCAL_WORKER, DATABASE = "worker", "miiii"

AUTHORITY_DAYS, SERVER_DAYS, RENEWAL_DAYS = 3650, 825, 90


@dataclass(frozen=True)
class Keys:
    """The two folders. URLs name `access` as this process sees it: all containers mount it at the same place."""

    keys: Path
    access: Path

    @property
    def authority(self) -> Path:
        """The certificate that a client must have."""
        return self.access / "ca.crt"

    @property
    def authority_key(self) -> Path:
        """The key that signs the server's certificate."""
        return self.keys / "ca.key"

    @property
    def worker_url(self) -> Path:
        """A file with the storage URL of this machine's workers."""
        return self.access / "worker.url"

    def prepare(self, names: Iterable[str] = ()) -> bool:
        """Makes what is missing; True if the server has a new certificate.

        It names the containers' own names, those that it named before, and `names`. Raises `MiiiiSearchError` if the
        folders cannot be written.
        """
        try:
            self.keys.mkdir(parents=True, exist_ok=True)
            self.access.mkdir(parents=True, exist_ok=True)
            if not self.authority_key.exists() or not self.authority.exists():
                self._make_authority()
            if not self.worker_url.exists():
                url = storage_url(LOCAL_WORKER, new_password(), "database", self.authority)
                _write(self.worker_url, url + "\n")
            for obsolete in ("owner.url", "owner.password"):  # of earlier versions
                (self.keys / obsolete).unlink(missing_ok=True)
            return self._certify(names)
        except OSError as error:
            raise MiiiiSearchError(
                f"cannot keep keys in {error.filename}: {error.strerror}; may this user write it?"
            ) from None

    def _make_authority(self) -> None:
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
        for old in ("server.crt", "ca.key"):  # what it signed, and what would not belong to the new certificate
            (self.keys / old).unlink(missing_ok=True)
        _write(self.authority, certificate.public_bytes(serialization.Encoding.PEM).decode())
        # Last: where there is a key, it is the certificate's.
        _write(self.authority_key, _pem(key))

    def _certify(self, names: Iterable[str]) -> bool:
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
        # Last: whoever sees a new certificate finds its key.
        _write(path, certificate.public_bytes(serialization.Encoding.PEM).decode())
        return True


def storage_url(role: str, password: str, host: str, authority: Path, port: int = 5432) -> str:
    """How a client reaches the database: only over TLS, only the server that the authority signed for this name."""
    return sa.URL.create(
        "postgresql",
        role,
        password,
        host,
        port,
        DATABASE,
        query={"sslmode": "verify-full", "sslrootcert": str(authority)},
    ).render_as_string(hide_password=False)


def new_password() -> str:
    """Of letters, digits, - and _ : it means itself in a URL, in a shell and in a file of Compose."""
    return secrets.token_urlsafe(24)


def server_names(keys: Keys) -> list[str]:
    """What the server's certificate names."""
    return _names_of(x509.load_pem_x509_certificate((keys.keys / "server.crt").read_bytes()))


def check_host(host: str) -> str:
    """A host name or an address as a certificate may name it. Raises `MiiiiSearchError`."""
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
        .not_valid_before(now - timedelta(hours=1))  # clocks of other machines may be behind
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _write(path: Path, text: str) -> None:
    """All of it or nothing, readable to this user alone."""
    write_file(path, text, private=True)
