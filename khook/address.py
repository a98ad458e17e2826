"""`host:port`, as a person writes where something listens: a name, an IPv4 address, or an IPv6 address in brackets."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
"""Names and IPv4 addresses; which of the many that look like one exist, only listening or asking tells."""
_MAX_PORT: Final = 65535
_RULE: Final = "is not allowed: host:port, such as 127.0.0.1:8082 or [::1]:8082"


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    """An IPv6 address without its brackets."""
    port: int
    """0: any free one."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _MAX_PORT:
        raise ValueError(f"{text!r} {_RULE}, with a port from 0 to {_MAX_PORT}")
    if host.startswith("[") and host.endswith("]") and _is_ipv6(host[1:-1]):
        return Address(host[1:-1], int(port))
    if _HOST.fullmatch(host):
        return Address(host, int(port))
    raise ValueError(f"{text!r} {_RULE}")


def _is_ipv6(text: str) -> bool:
    try:
        return IPv6Address(text).scope_id is None
    except ValueError:
        return False
