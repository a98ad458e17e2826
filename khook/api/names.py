"""Names of agents, namespaces and what Events and owner references speak of: DNS-1123, checked here and nowhere else.

A name that passes is safe in a URL's path, a label and a log line. The patterns are written for the CRD's schema
(Go RE2) and used here too, so that the API server and the models refuse the same names.
Source: k8s.io/apimachinery/pkg/util/validation (IsDNS1123Label, IsDNS1123Subdomain).
"""

import re
from typing import Final

MAX_NAMESPACE_CHARS: Final = 63
MAX_AGENT_CHARS: Final = 253
MAX_AGENT_ID_CHARS: Final = MAX_NAMESPACE_CHARS + 1 + MAX_AGENT_CHARS

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"

NAMESPACE_PATTERN: Final = f"^{_LABEL}$"
AGENT_PATTERN: Final = f"^{_SUBDOMAIN}$"
AGENT_ID_PATTERN: Final = f"^({_LABEL}/)?{_SUBDOMAIN}$"

_MAX_NAME_CHARS: Final = 253
_KIND: Final = "[A-Za-z0-9]{1,63}"
# A UUID, or of a static pod a hash.
_UID: Final = "[A-Za-z0-9-]{0,64}"

_RULE: Final = "lower-case letters, digits and '-', beginning and ending with a letter or digit"


def namespace(text: str) -> str:
    """`text`, if it is a DNS-1123 label. Raises ValueError."""
    if len(text) > MAX_NAMESPACE_CHARS or not re.fullmatch(_LABEL, text):
        raise ValueError(f"must be a namespace's name: {_RULE}, at most {MAX_NAMESPACE_CHARS} characters")
    return text


def agent(text: str) -> str:
    """`text`, if it is a DNS-1123 subdomain. Raises ValueError."""
    if len(text) > MAX_AGENT_CHARS or not re.fullmatch(_SUBDOMAIN, text):
        raise ValueError(f"must be an agent's name: {_RULE}, at most {MAX_AGENT_CHARS} characters")
    return text


def agent_id(text: str) -> str:
    """`text`, if it is an agent's name or namespace/name. Raises ValueError."""
    before, slash, after = text.partition("/")
    try:
        agent(after if slash else before)
        if slash:
            namespace(before)
    except ValueError:
        raise ValueError(f"must be an agent's name or namespace/name: {_RULE}") from None
    return text


def can_exist(*, kind: str, name: str, uid: str) -> bool:
    """Whether an object can be called so. In an Event and in an owner reference the API server checks none of it."""
    plausible = re.fullmatch(_KIND, kind) and re.fullmatch(_UID, uid) and len(name) <= _MAX_NAME_CHARS
    return bool(plausible and re.fullmatch(_SUBDOMAIN, name))
