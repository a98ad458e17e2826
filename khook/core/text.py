"""Text that other people wrote, made safe to keep and to pass on.

Event messages, container names and agents' answers are data of whoever runs a pod: before they stand in a status, a
prompt or a log they become one line of visible characters and are cut to a size in bytes without tearing one. What
goes is what a terminal would obey or what a person does not see and a model reads: whole escape sequences (ECMA-48;
OSC 8 links), controls, bidi ("Trojan Source", CVE-2021-42574), zero-width and tag characters, variation selectors,
private and unassigned code points (Unicode TR 36, TR 39, and DerivedCoreProperties' Default_Ignorable_Code_Point).

Letters of every script stay, and so do emoji; but zero-width joiners and variation selectors go everywhere, so a
family of emoji becomes its members and a Persian compound is written together. What a message says survives that, and
any rule that kept some of them would leave a channel for words that nobody sees. Homoglyphs stay: they are letters.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

# Beyond this many times `max_bytes` of characters nobody looks: cleaning a message of 1 MiB would hold up its worker.
_LOOKED_AT: Final = 4
# A letter with all that belongs on it: Hebrew with points and accent, Devanagari, Vietnamese; Zalgo text has dozens.
_MARKS_MOST: Final = 4

# Escape sequences (ECMA-48, xterm's ctlseqs): command strings up to their terminator or the line's end, CSI, others.
# The 8-bit forms stand in mis-decoded text too: there the introducer alone goes, unless the whole sequence is there.
_SEQUENCE: Final = re.compile(
    "\x1b[PX\\]^_][^\x07\x1b\x9c\r\n]*+(?:\x07|\x1b\\\\|\x9c)?"
    "|[\x90\x98\x9d-\x9f][^\x07\x1b\x90\x98\x9c-\x9f\r\n]*+(?:\x07|\x1b\\\\|\x9c)"
    "|(?:\x1b\\[|\x9b)[0-?]*+[ -/]*+[@-~]"
    "|\x1b[ -/]*+[0-~]?"
)
# All but what is plainly visible, so that only the rest is looked at one by one: not ASCII, Latin, Greek, Cyrillic,
# Hebrew, Arabic, punctuation, arrows, symbols, kana, ideographs, Hangul, most emoji.
_RARE: Final = re.compile(
    "[^ -~\xa1-\xac\xae-\u02ff\u0391-\u03a1\u03a3-\u0482\u048a-\u052f\u05d0-\u05ea\u0620-\u064a\u0660-\u066f"
    "\u0671-\u06d3\u1e00-\u1eff\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u218b\u2190-\u2426\u2460-\u27ff"
    "\u3001-\u3029\u3041-\u3096\u309b-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff9f"
    "\U0001f300-\U0001f64f\U0001f680-\U0001f6c5\U0001f900-\U0001f9ff]+"
)
# Line ends and tabs separate words; in a row they become one space, so that a message stays one line.
_BREAKS: Final = "\t\n\v\f\r\x85\u2028\u2029"
# Letters and marks that show nothing: Hangul fillers, grapheme joiner, Khmer inherent vowels, variation selectors
# (Mongolian, 1 to 16, 17 to 256). The rest of what is invisible falls with its category.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BRAILLE_BLANK: Final = "\u2800"
# Characters looked up: the scripts that one cluster writes in. Some 150 bytes each.
_LOOKS_MOST: Final = 4096


def plain(text: str, *, max_bytes: int) -> str:
    """`text` as one line of visible characters, at most `max_bytes` of UTF-8."""
    text = text[: _LOOKED_AT * max_bytes]
    if not (text.isascii() and text.isprintable()) and _RARE.search(text):
        if "\x1b" in text or not text.isascii():
            text = _SEQUENCE.sub("", text)
        text = _RARE.sub(_cleaned, text)
    return cut(text, max_bytes=max_bytes)


def cut(text: str, *, max_bytes: int) -> str:
    """The longest start of `text` that fits into `max_bytes` of UTF-8 and ends between two characters."""
    if text.isascii():
        return text[:max_bytes]
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return text
    return encoded[:max_bytes].decode("utf-8", "ignore")


def _cleaned(run: re.Match[str]) -> str:
    """A run of rare characters. Before it stands an ordinary one, which may carry marks, or nothing."""
    if not run[0].strip(_BREAKS):
        return " "
    kept: list[str] = []
    marks = 0 if run.start() else _MARKS_MOST  # with nothing before it a mark would settle on what we put there
    for char in _INVISIBLE.sub("", run[0]):
        shown, is_mark = _look(char)
        if is_mark:
            marks += 1
            shown = char if marks <= _MARKS_MOST else ""
        elif shown:
            marks = 0
        if shown and not (char in _BREAKS and kept and kept[-1] == " "):
            kept.append(shown)
    return "".join(kept)


@lru_cache(maxsize=_LOOKS_MOST)
def _look(char: str) -> tuple[str, bool]:
    """What is shown for it, and whether it is a mark on the letter before."""
    if char in _BREAKS or char == _BRAILLE_BLANK:
        return " ", False
    category = unicodedata.category(char)[0]
    match category:
        case "C":  # controls, formats, surrogates, private use, unassigned
            return "", False
        case "Z":
            return " ", False
        case _:
            return char, category == "M"
