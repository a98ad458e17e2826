"""Which documents are generated, and how each is made from what it is now.

The way of a document is a function from its old text to its new one. Where it is generated in part, people write
around the marks: `<!-- generated: NAME … -->` and `<!-- end of NAME -->`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from reference.hooks import api_reference
from reference.log_keys import log_keys
from reference.metrics import metrics
from reference.settings import settings

Part = Callable[[], str]
_MARKS: Final = ("before it", "behind it")


class NoMark(Exception):
    """A document lacks the two marks between which a part of it is generated."""


def with_parts(text: str, *, parts: dict[str, Part]) -> str:
    """`text` with each part made anew between its marks. Raises NoMark."""
    for name, made in parts.items():
        found = re.findall(rf"<!-- generated: {name}\b[^\n]*-->\n|<!-- end of {name} -->", text)
        if len(found) != len(_MARKS):
            raise NoMark(name)
        before, _, rest = text.partition(found[0])
        text = f"{before}{found[0]}\n{made()}\n{found[1]}{rest.partition(found[1])[2]}"
    return text


DOCUMENTS: Final[dict[str, Callable[[str], str]]] = {
    "README.md": partial(with_parts, parts={"settings": settings}),
    "docs/api-reference.md": lambda _: api_reference(),
    "docs/operations.md": partial(with_parts, parts={"metrics": metrics, "log keys": log_keys}),
}
"""By path in the repository."""
