"""Text that other people wrote, made safe to keep and to pass on.

Event messages, container names and agents' answers are data of whoever runs a pod: before they stand in a status, a
prompt or a log they lose what a terminal or a reader would obey (control and bidi characters, Unicode TR 36 and
"Trojan Source", CVE-2021-42574) and are cut to a size in bytes without tearing a character.
"""

import re
from typing import Final

# Line ends and tabs separate words; they become one space so that a message stays one line.
_BREAKS: Final = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")
# C0 and C1 controls, DEL, bidi marks, embeddings and isolates, lone surrogates.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str, *, max_bytes: int) -> str:
    """`text` as one line without control or bidi characters, at most `max_bytes` of UTF-8."""
    return cut(_UNSAFE.sub("", _BREAKS.sub(" ", text)), max_bytes=max_bytes)


def cut(text: str, *, max_bytes: int) -> str:
    """The longest start of `text` that fits into `max_bytes` of UTF-8 and ends between two characters."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return text
    return encoded[:max_bytes].decode("utf-8", "ignore")
