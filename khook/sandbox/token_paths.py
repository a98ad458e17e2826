"""A bearer token in front of the path, for kubectl: it sends no token over plain http, and there is no TLS here.

A kubeconfig's server may have a path in front of the API's, as it has behind a proxy; khook understands that as well,
so one kubeconfig serves both. Source: client-go `tools/clientcmd` (credentials only where the transport is secure).
"""

from dataclasses import replace
from typing import Final

from khook.sandbox.exchange import Request

PREFIX: Final = "/as/"


def server_url(base: str, token: str) -> str:
    """What stands in a kubeconfig."""
    return f"{base.rstrip('/')}{PREFIX}{token}"


def unwrapped(request: Request) -> Request:
    """The request as if its token had come in the header; any other is left alone."""
    if not request.path.startswith(PREFIX):
        return request
    token, _, path = request.path.removeprefix(PREFIX).partition("/")
    headers = {"authorization": f"Bearer {token}"} | dict(request.headers)
    return replace(request, path=f"/{path}", headers=headers)
