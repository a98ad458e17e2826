"""What Go and sprig do with a string, for strings that are text.

Go's strings are bytes, these are characters, always: `trunc` counts bytes as sprig's does, but leaves no half
character, and an escape in a literal that is not UTF-8 is refused. So nothing torn can join into another character.
Sources: https://pkg.go.dev/strconv#Quote, https://go.dev/ref/spec#String_literals,
https://pkg.go.dev/strings#ToUpper, https://masterminds.github.io/sprig/strings.html. What is printable and what a
letter's other case is comes from Python's Unicode tables, a version or two beside Go's.
"""

import re
from typing import Final

_ESCAPED: Final = {
    "\a": r"\a",
    "\b": r"\b",
    "\t": r"\t",
    "\n": r"\n",
    "\v": r"\v",
    "\f": r"\f",
    "\r": r"\r",
    '"': r"\"",
    "\\": r"\\",
}
_UNESCAPED: Final = {written: char for char, written in _ESCAPED.items()}
_ESCAPE: Final = re.compile(
    r"\\(?:x(?P<byte>[0-9a-fA-F]{2})|(?P<octal>[0-3][0-7]{2})|u(?P<u4>[0-9a-fA-F]{4})|U(?P<u8>[0-9a-fA-F]{8}))"
    r"|(?P<simple>\\[abtnvfr\"\\])|(?P<wrong>\\.?)",
    re.DOTALL,
)
_SURROGATES: Final = range(0xD800, 0xE000)
_CODE_POINTS: Final = 0x11_0000


def quote(text: str) -> str:
    """A Go string literal of `text` (strconv.Quote, the verb %q)."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(char: str) -> str:
    if char in _ESCAPED:
        return _ESCAPED[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x1_0000 else f"\\U{code:08x}"


def unquote(literal: str) -> str:
    """What a literal in double quotes stands for; raises ValueError with the reason."""
    body = literal[1:-1]
    if "\\" not in body:
        return body
    parts: list[bytes] = []
    at = 0
    for escape in _ESCAPE.finditer(body):
        parts += (body[at : escape.start()].encode("utf-8", "replace"), _unescaped(escape))
        at = escape.end()
    parts.append(body[at:].encode("utf-8", "replace"))
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        raise ValueError("its escapes are no UTF-8 text") from None


def _unescaped(escape: re.Match[str]) -> bytes:
    match escape.lastgroup:
        case "byte":
            return bytes([int(escape["byte"], 16)])
        case "octal":
            return bytes([int(escape["octal"], 8)])
        case "simple":
            return _UNESCAPED[escape["simple"]].encode()
        case "u4" | "u8" as group:
            code = int(escape[group], 16)
            if code < _CODE_POINTS and code not in _SURROGATES:
                return chr(code).encode()
    raise ValueError(f"it has no escape {escape[0]}")


def unquote_raw(literal: str) -> str:
    """What a literal in back quotes stands for: Go leaves carriage returns out."""
    return literal[1:-1].replace("\r", "")


def upper(text: str) -> str:
    return text.upper() if text.isascii() else "".join(map(_upper, text))


def lower(text: str) -> str:
    # Character by character: str.lower ends a word in another sigma, and makes two characters of one of them.
    return text.lower() if text.isascii() else "".join(char.lower()[0] for char in text)


def _upper(char: str) -> str:
    """Go maps one character to one: where the upper case has more, the title case may have one, else it stays."""
    for mapped in (char.upper(), char.title()):
        if len(mapped) == 1:
            return mapped
    return char


def trunc(size: int, text: str) -> str:
    """The first `size` bytes of UTF-8, the last `-size` where it is negative, without a torn character."""
    encoded = text.encode("utf-8", "replace")
    if abs(size) >= len(encoded):
        return text
    return (encoded[:size] if size >= 0 else encoded[size:]).decode("utf-8", "ignore")
