"""Certificates for tests, made by the `openssl` command."""

from __future__ import annotations

import os
import ssl
import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_CONFIGURATION = """\
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1
"""
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Pair(NamedTuple):
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def flags(self) -> tuple[object, ...]:
        """What to start prod-run with."""
        return "--tls-cert", self.cert, "--tls-key", self.key

    def replace(self, by: Pair) -> None:
        """Put another pair in the place of this one, each file at once."""
        for ours, other in zip(self, by, strict=True):
            fresh = ours.with_suffix(".fresh")
            fresh.write_bytes(other.read_bytes())
            fresh.chmod(0o600)
            os.replace(fresh, ours)


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._configuration = folder / f"{name}.cnf"
        self._configuration.write_text(_CONFIGURATION)
        self.cert, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        self._openssl("req", "-x509", *_EC, "-subj", f"/CN={name}", "-extensions", "ca", "-days", "9",
                      "-keyout", self._key, "-out", self.cert)  # fmt: skip

    def issue(self, name: str, *, days: int = 9) -> Pair:
        """Make a certificate for localhost whose subject is `name`; one of negative days has expired."""
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        self._openssl("req", "-new", *_EC, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-days", days,
                      "-extfile", self._configuration, "-extensions", "leaf", "-out", pair.cert)  # fmt: skip
        pair.key.chmod(0o600)
        return pair

    def client(self, pair: Pair | None = None) -> ssl.SSLContext:
        """Return what a client of ours has: it believes this authority."""
        context = ssl.create_default_context(cafile=str(self.cert))
        if pair:
            context.load_cert_chain(pair.cert, pair.key)
        return context

    def _openssl(self, *words: object) -> None:
        argv = ["openssl", *map(str, words)]
        if words[0] == "req":
            argv += ["-config", str(self._configuration)]
        subprocess.run(argv, check=True, capture_output=True)
