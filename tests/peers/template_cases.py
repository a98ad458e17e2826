"""Templates by chance, from a seed: whole ones along the grammar, and the same with a few characters wrong.

Whole templates are typed: every argument is of a kind that its function takes, so Go must execute them. They have odd
white space, trim markers, comments, ifs in ifs, pipelines in parentheses, and literals with every escape.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

CORPUS = Path(__file__).parents[1] / "corpus"
FIELDS = ("ResourceName", "EventTime", "Namespace", "EventMessage", "EventType", "Reason", "Message", "Timestamp")
VALUES = (
    "",
    "",
    "a",
    "pod-restart",
    "production",
    "my-app-pod-123",
    "Back-off restarting failed container",
    "{{.Namespace}} {{- if}} {{/* }}",
    'say "no" \\ or `yes`\n\tand 100%',
    "Ünïcödé ß İı ŉ ﬁ ᾳ Ǆ ΟΔΟΣ ς 日本 🦊",
    "\x00\x01\a\b\f\v\r\x1b\x7f\x85\xa0\xad\u200b\u202e\u2028\ufeff\ufffd\ue000\U000e0001\U0010ffff",
    "  spaces  ",
)
_TEXTS = (
    "",
    " ",
    "\n",
    " \t\r\n ",
    "Look at:\v",
    "\xa0",
    "{ x } ",
    "}} ",
    "é日🦊 ",
    "-",
    " - ",
    "/* text */ ",
    '"',
    ".",
)
_SPACES = ("", "", "", " ", " ", "  ", "\t", "\n", "\r\n ")
_PLAIN = ("a", "b c", "é", "日", "🦊", "'", "}}", "{{.Reason}}", "/*", " -}}", "%s", ")", "|", "\t")
_ESCAPES = (
    *(r"\a", r"\b", r"\f", r"\n", r"\r", r"\t", r"\v", r"\\", r"\"", r"\x41", r"\x00", r"\x7f", r"\101", r"\000"),
    *(r"\177", r"\u00e9", r"\u202e", r"\ufffd", r"\U0001F98A", r"\U0010FFFF", r"\xc3\xa9", r"\303\251"),
)
_RAW = ("a", "\\n", '"', "}}", "\n", "\r\n", "\r", "é", "{{.Reason}}", "\\", " ")
_NUMBERS = ("0", "1", "2", "3", "5", "10", "-1", "-4", "+7", "-0", "63", str(2**63 - 1), str(-(2**63)))
_KINDS = ("text", "number", "truth")
_MISTAKES = (*" \n\v\xa0\x00aé0-+.:,='\"`\\/()|{}$", "{{", "}}", "{{- ", " -}}", "/*", "*/")
_FRAGMENTS = tuple((CORPUS / "template_fragments.txt").read_text(encoding="utf-8").splitlines())
_DELIMITER = re.compile(r"(?=[{}()|. \t\r\n\"`/-])|(?<=[{}()|. \t\r\n\"`/-])")


class Cases:
    """Texts and values, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def values(self) -> dict[str, str]:
        return {field: self._random.choice(VALUES) for field in FIELDS}

    def template(self, *, depth: int, nodes: int) -> str:
        """Of at most so many nodes, and ifs that are as deep at most."""
        return "".join(self._node(depth, nodes) for _ in range(self._random.randint(1, nodes)))

    def spoiled(self, text: str) -> str:
        """The text with a mistake or two, mostly beside a delimiter, or with a fragment, wrong or not khook's."""
        for _ in range(self._random.choice((1, 1, 1, 2))):
            places = [place.start() for place in _DELIMITER.finditer(text)]
            at = (
                self._random.choice(places or [0])
                if self._random.random() < 0.7
                else self._random.randint(0, len(text))
            )
            behind = at + self._random.choice((0, 0, 1, 1, 2))
            text = text[:at] + self._random.choice(self._random.choice((("",), _MISTAKES, _FRAGMENTS))) + text[behind:]
        return text

    # Nodes.

    def _node(self, depth: int, nodes: int) -> str:
        return self._one_of(self._text, self._comment, self._put, self._put, lambda: self._if(depth, nodes))

    def _text(self) -> str:
        return "".join(self._some(_TEXTS, 3))

    def _comment(self) -> str:
        opening, closing = self._random.choice(("{{/*", "{{- /*")), self._random.choice(("*/}}", "*/ -}}", "*/\n-}}"))
        return (
            opening + "".join(self._some((" note ", "}}", "{{", "\n", "*", "/"), 3)).replace("*/", "") + " " + closing
        )

    def _put(self) -> str:
        return self._action(self._pipeline(self._random.choice(_KINDS), 2))

    def _if(self, depth: int, nodes: int) -> str:
        if not depth:
            return ""
        branches = [self._random.choice(("if ", "if(", "if."))]
        branches += [f"else{self._gap()}if " for _ in range(self._random.choice((0, 0, 1, 2)))]
        parts = [self._action(self._condition(word)) + self.template(depth=depth - 1, nodes=nodes) for word in branches]
        if self._random.random() < 0.5:
            parts.append(self._action("else") + self.template(depth=depth - 1, nodes=nodes))
        return "".join(parts) + self._action("end")

    def _condition(self, word: str) -> str:
        match word:
            case "if(":
                return f"if({self._pipeline('text', 1)})"
            case "if.":
                return "if." + self._random.choice(FIELDS)
        return word + self._pipeline(self._random.choice(_KINDS), 2)

    def _action(self, body: str) -> str:
        opening, closing = self._random.choice(("{{", "{{", "{{- ")), self._random.choice(("}}", "}}", " -}}", "\t-}}"))
        return opening + self._space() + body + self._space() + closing

    # Pipelines.

    def _pipeline(self, kind: str, depth: int) -> str:
        if not depth or self._random.random() < 0.3:
            return self._operand(kind, depth)
        name, kinds = self._call(kind)
        if self._random.random() < 0.5:
            return self._written(name, kinds, depth)
        before = self._pipeline(kinds[-1], depth - 1)
        return f"{before}{self._space()}|{self._space()}{self._written(name, kinds[:-1], depth)}"

    def _written(self, name: str, kinds: Sequence[str], depth: int) -> str:
        return "".join([name, *(self._gap() + self._operand(kind, depth - 1) for kind in kinds)])

    def _call(self, kind: str) -> tuple[str, list[str]]:
        """A function that gives this kind, and the kinds of its arguments."""
        other = self._random.choice(_KINDS)
        chosen: list[tuple[str, list[str]]] = [
            (self._random.choice(("and", "or")), [kind] * self._random.randint(1, 4)),
            ("default", [kind, kind]),
        ]
        match kind:
            case "text":
                quoted = [self._random.choice(_KINDS) for _ in range(self._random.choice((1, 1, 1, 3)))]
                chosen += [("upper", ["text"]), ("lower", ["text"]), ("trunc", ["number", "text"]), ("quote", quoted)]
            case "truth":
                compared = [other] * self._random.choice((2, 2, 3, 5))
                chosen += [("eq", compared), ("ne", [other] * 2), ("not", [other])]
                # Go looks at what they are when it executes, and takes any for a condition.
                chosen += [("not", ["text"]), ("eq", ["text", "text"])]
        return self._random.choice(chosen)

    def _operand(self, kind: str, depth: int) -> str:
        if depth > 0 and self._random.random() < 0.3:
            return f"({self._space()}{self._pipeline(kind, depth - 1)}{self._space()})"
        match kind:
            case "text":
                return self._one_of(self._field, self._field, self._string, self._raw)
            case "number":
                return self._random.choice(_NUMBERS)
        return self._random.choice(("true", "false"))

    def _field(self) -> str:
        return "." + self._random.choice(FIELDS)

    def _string(self) -> str:
        return '"' + "".join(self._some(_PLAIN + _ESCAPES if self._random.random() < 0.5 else _PLAIN, 4)) + '"'

    def _raw(self) -> str:
        return "`" + "".join(self._some(_RAW, 4)) + "`"

    # Chance.

    def _one_of(self, *ways: Callable[[], str]) -> str:
        return self._random.choice(ways)()

    def _some(self, pieces: Sequence[str], most: int) -> list[str]:
        return [self._random.choice(pieces) for _ in range(self._random.randint(0, most))]

    def _space(self) -> str:
        return self._random.choice(_SPACES)

    def _gap(self) -> str:
        return self._random.choice(_SPACES) or " "
