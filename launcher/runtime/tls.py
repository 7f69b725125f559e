"""
The TLS context of a generation, made of files once.

Owns the reading of a certificate, its key and the authorities of clients, and the sentences for what is wrong.
Must never put anything of a key into a sentence.

The files are read as secrets are: those of a volume that Kubernetes swaps belong together, the processes that a
generation starts later get the same bytes, and --watch looks at them.
"""

from __future__ import annotations

import os
import ssl
import time

from launcher.appconfig.secret_files import FileError
from launcher.errors import Problem
from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.appconfig.secret_files import Contents, Files
    from launcher.handoff import Ingress

CERT, KEY, CLIENT_CA = "--tls-cert", "--tls-key", "--tls-client-ca"
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")
_VERSION, _SEQUENCE, _UTC_TIME = 0xA0, 0x30, 0x17  # of ASN.1, X.690 §8.1.2
_PIVOT = "50"  # RFC 5280 §4.1.2.5.1: years of two digits from here on are of 19xx


class Made(NamedTuple):
    """What came of the files; no context if there are problems."""

    context: ssl.SSLContext | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


class _EncryptedError(Exception):
    """OpenSSL asks for a passphrase."""


def make(wanted: Ingress, files: Files) -> Made:
    """Read the files and make the context."""
    problems: list[Problem] = []
    certificate = _read(CERT, wanted.tls_cert, files, problems)
    key = _read(KEY, wanted.tls_key, files, problems)
    authorities = _read(CLIENT_CA, wanted.tls_client_ca, files, problems) if wanted.tls_client_ca else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    if certificate and key:
        problems += _load(context, certificate, key, wanted)
    if authorities:
        problems += _admit(context, authorities, wanted.tls_client_ca)
    warnings = [Problem(KEY, key.warning)] if key and key.warning else []
    if certificate and not problems:
        warnings += _about_time(certificate.data, wanted.tls_cert)
    return Made(None if problems else context, tuple(problems), tuple(warnings))


def _read(name: str, path: str, files: Files, problems: list[Problem]) -> Contents | None:
    path = os.path.abspath(path)
    try:
        found = files.read(path)
    except FileError as error:
        problems.append(Problem(name, error.reason, error.remedy))
        return None
    if found is None:
        problems.append(Problem(name, f"{path} does not exist", "Name the file, or put it there"))
    return found


def _load(context: ssl.SSLContext, certificate: Contents, key: Contents, wanted: Ingress) -> list[Problem]:
    problems = []
    if _CERTIFICATE[0] not in certificate.data:
        problems.append(Problem(CERT, f"{wanted.tls_cert} holds no certificate in PEM", "Convert it with openssl"))
    if b"PRIVATE KEY-----" not in key.data:
        problems.append(Problem(KEY, f"{wanted.tls_key} holds no private key in PEM", "Convert it with openssl"))
    if problems:
        return problems
    descriptors = []
    try:
        # OpenSSL takes names only, and what was read is to be loaded, not what stands there by now.
        for name, data in (("certificate", certificate.data), ("key", key.data)):
            descriptors.append(os.memfd_create(f"prod-run-{name}", os.MFD_CLOEXEC))
            with open(descriptors[-1], "wb", closefd=False) as file:
                file.write(data)
        first, second = (f"/proc/self/fd/{fd}" for fd in descriptors)
        context.load_cert_chain(first, second, _ask)
    except _EncryptedError:
        return [Problem(KEY, f"{wanted.tls_key} is encrypted", "Nobody types a passphrase here: store it decrypted")]
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            reason = f"{wanted.tls_key} is not the key of the certificate in {wanted.tls_cert}"
            return [Problem(KEY, reason, "Name the two that belong together")]
        return [Problem(CERT, f"OpenSSL cannot use {wanted.tls_cert} with {wanted.tls_key}: {error.reason}")]
    except OSError as error:
        return [Problem(CERT, f"the system refused to hand it to OpenSSL: {error.strerror}", "Is /proc mounted?")]
    finally:
        for fd in descriptors:
            os.close(fd)
    return []


def _ask() -> bytes:
    raise _EncryptedError


def _admit(context: ssl.SSLContext, authorities: Contents, path: str) -> list[Problem]:
    try:
        context.load_verify_locations(cadata=authorities.data.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        return [
            Problem(CLIENT_CA, f"{path} holds no certificate in PEM that OpenSSL can use", "Convert it with openssl")
        ]
    context.verify_mode = ssl.CERT_REQUIRED
    return []


# ── how long the certificate is good ────────────────────────────────────────────────────────────────


def _about_time(pem: bytes, path: str) -> list[Problem]:
    """Warn of a certificate that clients will refuse; a start that fails for it would help nobody."""
    _, _, rest = pem.partition(_CERTIFICATE[0])
    text = rest.partition(_CERTIFICATE[1])[0].decode("ascii", "replace")
    begin, end = validity(
        ssl.PEM_cert_to_DER_cert("\n".join((_CERTIFICATE[0].decode(), text.strip(), _CERTIFICATE[1].decode())))
    )
    now = time.strftime("%Y%m%d%H%M%SZ", time.gmtime())
    if end < now:
        return [Problem(CERT, f"the certificate in {path} expired on {_day(end)}: clients will refuse it")]
    if begin > now:
        return [Problem(CERT, f"the certificate in {path} is not valid before {_day(begin)}: clients will refuse it")]
    return []


def validity(der: bytes) -> tuple[str, str]:
    """Return from when and until when a certificate is good, as `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5)."""
    _, place, _ = _element(der, 0)  # Certificate
    _, place, _ = _element(der, place)  # TBSCertificate
    kind, _, end = _element(der, place)
    for _ in range(3 if kind == _VERSION else 2):  # the version, if it is said; serial number; signature; issuer
        _, _, end = _element(der, end)
    _, place, _ = _element(der, end)
    times = []
    for _ in range(2):
        kind, begin, place = _element(der, place)
        text = der[begin:place].decode("ascii", "replace")
        century = "" if kind != _UTC_TIME else "19" if text[:2] >= _PIVOT else "20"
        times.append(century + text)
    return times[0], times[1]


def _element(der: bytes, place: int) -> tuple[int, int, int]:
    """Read the head of an element (X.690 §8.1): its kind, where its content begins, and where it ends."""
    kind, length, begin = der[place], der[place + 1], place + 2
    if length & 0x80:
        size = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + size], "big"), begin + size
    return kind, begin, begin + length


def _day(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
