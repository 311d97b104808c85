"""Certificates of our own: an authority, those of servers, and those of nodes, which the authority signs on request.

Keys are of the curve P-256. The one door to `cryptography` for X.509.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roundhouse.kit.errors import InvalidArgument, Usage
from roundhouse.kit.files import write_atomically

_NODE_URI = "roundhouse://nodes/{}/epochs/{}"
_NODE_URIS = re.compile(r"roundhouse://nodes/([a-z0-9-]+)/epochs/(\d{1,18})\Z")
MAX_REQUEST_BYTES = 16 * 1024
_EARLY = timedelta(minutes=5)  # clocks of two machines differ
_AUTHORITY_LIFE = timedelta(days=3650)
_PUBLIC = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate in PEM, and when it ends, in seconds since 1970."""

    certificate: bytes
    expire_s: float


class Authority:
    """Signs, with one key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def make(cls, name: str, now_s: float) -> Authority:
        """Returns a new one, good for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        builder = _begin(subject, subject, key.public_key(), now_s, _AUTHORITY_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Authority:
        """Returns the one in two files; raises Usage if they cannot be read or do not belong together."""
        try:
            found = x509.load_pem_x509_certificate(certificate.read_bytes())
            private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        except OSError as error:
            raise Usage(f"cannot read {error.filename}: {error.strerror}: check its path and permissions") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Usage(f"{certificate} and {key} are no authority: make one with roundhouse certs init") from error
        public = private.public_key()
        if not isinstance(private, ec.EllipticCurvePrivateKey) or _der(public) != _der(found.public_key()):
            raise Usage(
                f"{key} is not the key of {certificate}, or none of a curve: make them with roundhouse certs init"
            )
        return cls(found, private)

    def save(self, certificate: Path, key: Path) -> None:
        """Writes both files, the key for its owner alone, and first: a certificate without its key is no use."""
        write_atomically(key, _key_pem(self._key), mode=0o600)
        write_atomically(certificate, self.certificate)

    @property
    def certificate(self) -> bytes:
        """Its own certificate in PEM: what others trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, hosts: Sequence[str], now_s: float, life_s: float) -> Pair:
        """Returns a certificate for a server that is called by these names and addresses, with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_host(each) for each in hosts])
        signed = self._sign(hosts[0], key.public_key(), names, ExtendedKeyUsageOID.SERVER_AUTH, now_s, life_s)
        return Pair(signed.certificate, _key_pem(key))

    def node(self, node_id: str, epoch: int, request: bytes, now_s: float, life_s: float) -> Signed:
        """Returns a certificate for a node, for the key of a signing request; raises InvalidArgument for that."""
        public = _request(request).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey), "checked with the request"
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_NODE_URI.format(node_id, epoch))])
        return self._sign(node_id, public, name, ExtendedKeyUsageOID.CLIENT_AUTH, now_s, life_s)

    def _sign(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        names: x509.SubjectAlternativeName,
        purpose: x509.ObjectIdentifier,
        now_s: float,
        life_s: float,
    ) -> Signed:
        life = timedelta(seconds=life_s)
        builder = _begin(_name(name), self._certificate.subject, public, now_s, life).add_extension(
            names, critical=False
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        signed = builder.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        return Signed(signed.public_bytes(serialization.Encoding.PEM), signed.not_valid_after_utc.timestamp())


def new_key() -> bytes:
    """Returns a new private key in PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def signing_request(key: bytes, name: str) -> bytes:
    """Returns a signing request in PEM for a private key."""
    private = serialization.load_pem_private_key(key, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey), "made by `new_key`"
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def public_key_hash(request: bytes) -> bytes:
    """Returns the SHA-256 of the public key in a signing request; raises InvalidArgument if it is no good one."""
    return hashlib.sha256(_der(_request(request).public_key())).digest()


def parse_node_uri(uri: str) -> tuple[str, int] | None:
    """Returns the bare id and the epoch of a node that a certificate names; None for another name."""
    found = _NODE_URIS.match(uri)
    return None if found is None else (found[1], int(found[2]))


def life_of(certificate: bytes) -> tuple[float, float]:
    """Returns when a certificate begins and ends, in seconds since 1970; raises ValueError if it is none."""
    found = x509.load_pem_x509_certificate(certificate)
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def _request(pem: bytes) -> x509.CertificateSigningRequest:
    try:
        if len(pem) > MAX_REQUEST_BYTES:
            raise ValueError("too long")
        request = x509.load_pem_x509_csr(pem)
        if not (isinstance(request.public_key(), ec.EllipticCurvePublicKey) and request.is_signature_valid):
            raise ValueError("signed by another key, or of another kind")
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise InvalidArgument(
            "certificate_request: it is no signing request (PKCS #10) in PEM, signed with a key of a curve: send one"
        ) from error
    return request


def _begin(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now_s: float, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_s, UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _EARLY).not_valid_after(now + life)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])  # no longer than X.520 has it


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption())


def _der(key: object) -> bytes:
    der: bytes = key.public_bytes(*_PUBLIC)  # type: ignore[attr-defined]
    return der
