"""Text that others wrote, cleaned: what stays, what goes, and that it is cut where it may be."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khook.core.text import _RARE, cut, plain

anything = st.text(st.characters(exclude_categories=()))


@given(st.text(), st.integers(0, 40))
def test_a_cut_is_the_longest_start_that_fits(text: str, max_bytes: int) -> None:
    short = cut(text, max_bytes=max_bytes)
    assert text.startswith(short)
    assert len(short.encode()) <= max_bytes
    assert short == text or len(text[: len(short) + 1].encode()) > max_bytes


@given(anything)
def test_plain_text_is_one_line_that_any_terminal_and_utf_8_can_carry(text: str) -> None:
    line = plain(text, max_bytes=1000)
    assert len(line.splitlines()) <= 1
    assert {char for char in line if unicodedata.category(char)[0] in "CZ"} <= {" "}
    assert not re.search("MMMMM", "".join(unicodedata.category(char)[0] for char in line))
    assert line == plain(line, max_bytes=1000)
    line.encode()


@pytest.mark.parametrize(
    "text",
    [
        "Back-off restarting failed container=app pod=web-1_shop(0c5c0a5e)",
        "Größe überschritten – „exit 137“ … été, señor, naïve, Ångström, İstanbul",
        "e\u0301te\u0301 in Normalization Form D, Vie\u0323\u0302t",
        "Ошибка: недостаточно памяти; Ελληνικά; ქართული; հայերեն",
        "内存不足，容器被终止。メモリ不足。메모리 부족。",
        "ذاكرة غير كافية، مَوْجُود",
        "אין מספיק זיכרון, בְּרֵאשִׁ֖ית",
        "पर्याप्त मेमोरी नहीं है; தமிழ்; বাংলা; ไม่มีหน่วยความจำที่ใหญ่",
        "😀 🚀 ✅ ❌ ⚠ 👩🏽 🇪🇺 →  ≤ € ½",
        'it\'s <b>text</b> & "quotes" \\x1b[31m {{.Namespace}} `code` $(id)',
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert plain(text, max_bytes=1000) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\n\tc\u2028d\x85e\v\ff", "a b c d e f"),
        ("a\n\u200b\nb", "a b"),
        ("a\u00a0b\u3000c\u2800d", "a b c d"),
        ("a\x00b\x07c\x7fd\x9fe", "abcde"),
        ("\u202eevil\u202c \u2066x\u2069\u200f\u061c", "evil x"),
        ("z\u200be\u200cr\u200do\u2060 \ufeffw\u00adidth\u2063", "zero width"),
        ("tag\U000e0001\U000e0064\U000e0065\U000e006c\U000e007fs", "tags"),
        ("\u2764\ufe0f \U0001f600\U000e0100\U000e0137 \u1820\u180b", "\u2764 \U0001f600 \u1820"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\U0001f469\U0001f467"),
        ("1\ufe0f\u20e3", "1\u20e3"),
        ("\ufff9base\ufffahidden\ufffb", "basehidden"),
        ("\ue000\U000f0000\u0378\ufdd0\uffffx", "x"),
        ("\ud800a\udfff", "a"),
        ("\u3164a\u115f\u1160\uffa0\u034f\u17b4b", "ab"),
        ("Z" + "\u0301\u0302" * 20 + "o", "Z" + "\u0301\u0302" * 2 + "o"),
        ("Z" + "\u0301\u200b" * 20, "Z" + "\u0301" * 4),
        ("Z" + "\u0301\x1b[m" * 20, "Z" + "\u0301" * 4),
        ("\u0301\u0338x", "x"),
        ("\x1b[31;1mred\x1b[0m\x1b[?25l", "red"),
        ("\x1b]0;title\x07a \x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "a link"),
        ("\x1bPq#0\x1b\\a\x1b_apc\x1b\\b\x1b^pm\x1b\\c\x1bXsos\x1b\\d", "abcd"),
        ("\x1bca\x1b(Bb\x1b7c\x1b", "abc"),
        ("\x9b31mred\x9b0m \x9d8;;https://example.com\x9clink\x9d8;;\x9c", "red link"),
        ("\x1b]never ends\nnext line", " next line"),
        ("\xe2\x9d\x8c mis-decoded", "\xe2 mis-decoded"),
        ("\x9b\xe9 is no sequence\x90", "\xe9 is no sequence"),
        ("\x1b\x1b[31m[31m", "[31m"),
    ],
)
def test_what_is_obeyed_or_not_seen_goes(text: str, shown: str) -> None:
    assert plain(text, max_bytes=1000) == shown


def test_what_is_taken_unseen_is_plainly_visible() -> None:
    taken = [char for char in map(chr, range(0x110000)) if not _RARE.match(char)]
    assert {unicodedata.category(char)[0] for char in taken} == {"L", "N", "P", "S", "Z"}
    assert [char for char in taken if unicodedata.category(char)[0] == "Z"] == [" "]
    assert not set(taken) & set("\u2800\u3164\uffa0\u115f\u1160\u034f")


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    assert plain("\u200b" * 4095 + "x", max_bytes=1024) == "x"
    assert plain("\u200b" * 4096 + "x", max_bytes=1024) == ""
