"""Who we are to the API server, as plain data.

The supervisor loads credentials and hands them to workers over the channel as bytes. Secrets are never in a repr.
A service account's token rotates, so it is a file to read again, not a value to keep. There is no way to switch
certificate verification off.
"""

import os
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """`server` is a base URL, with a path in front of the API's where a proxy needs one."""

    server: str
    ca_pem: str = field(default="", repr=False)
    """Empty: the system's authorities."""
    token: str = field(default="", repr=False)
    token_file: str = ""
    """Read again at least every minute; wins over `token`."""
    client_cert_pem: str = field(default="", repr=False)
    client_key_pem: str = field(default="", repr=False)
    tls_server_name: str = ""
    """The name in the server's certificate where it is not the URL's host."""
    namespace: str = ""
    """The kubeconfig context's or the service account's own, where known."""
    expires_time: datetime | None = None
    """UTC, where whoever issued them said so; a token file and a certificate of the kubeconfig's own do not."""

    @property
    def tls(self) -> bool:
        return self.server.startswith("https://")


_decoder: Final = msgspec.json.Decoder(Credentials)


def encode(credentials: Credentials) -> bytes:
    """For the channel to a worker."""
    return msgspec.json.encode(credentials)


def decode(payload: bytes) -> Credentials:
    """The inverse of `encode`; raises msgspec.DecodeError."""
    return _decoder.decode(payload)


def fits_a_header(token: str) -> bool:
    """Anything else makes the libraries fail in ways of their own, some of them quoting it."""
    return token.isascii() and token.isprintable()


def tls_context(credentials: Credentials) -> ssl.SSLContext | None:
    """One context for all connections (22–33 ms to make), None for plain http. Raises ssl.SSLError on a bad PEM.

    Not `ssl.create_default_context`: since Python 3.13 that sets VERIFY_X509_STRICT, which refuses the authorities
    that kubeadm and others made without an authority key identifier.
    """
    if not credentials.tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if credentials.ca_pem:
        context.load_verify_locations(cadata=credentials.ca_pem)
    else:
        context.load_default_certs()
    if credentials.client_cert_pem:
        _load_client_certificate(context, credentials)
    return context


def _load_client_certificate(context: ssl.SSLContext, credentials: Credentials) -> None:
    """OpenSSL wants a path: an anonymous file in memory has one, and no key ever touches a disk."""
    descriptor = os.memfd_create("khook-client-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{credentials.client_cert_pem}\n{credentials.client_key_pem}\n")
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
