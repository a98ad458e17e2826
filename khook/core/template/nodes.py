"""What a template is once it was read: blocks of nodes, and pipelines of commands inside them.

Every operand knows the kinds that its value can have. All fields are text, so what Go would find only when it
executes a template (upper of a number, eq of a text and a number) is found here from the template alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Field(StrEnum):
    """What a template can name."""

    RESOURCE_NAME = "ResourceName"
    EVENT_TIME = "EventTime"
    NAMESPACE = "Namespace"
    EVENT_MESSAGE = "EventMessage"
    EVENT_TYPE = "EventType"
    REASON = "Reason"
    MESSAGE = "Message"
    TIMESTAMP = "Timestamp"


class Kind(StrEnum):
    """What a value is. The values are words for messages."""

    TEXT = "a text"
    NUMBER = "a whole number"
    TRUTH = "true or false"


Kinds = frozenset[Kind]
Value = str | int | bool

TEXT: Final = frozenset({Kind.TEXT})
NUMBER: Final = frozenset({Kind.NUMBER})
TRUTH: Final = frozenset({Kind.TRUTH})
ANY: Final = TEXT | NUMBER | TRUTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function by what it takes; `khook.core.template.functions` has the table."""

    name: str
    usage: str
    takes: tuple[Kinds, ...]
    """Kinds of the first arguments, all of which must be there."""
    rest: Kinds | None = None
    """Kinds of any further ones; None where there may be none."""
    alike: bool = False
    """All arguments must be of one and the same kind."""
    gives: Kinds | None
    """Kinds of the result; None where it is one of the arguments."""
    apply: Callable[[Iterator[Value]], Value]
    """Takes from the iterator only as many as it needs: so `and` and `or` stop where Go's do. Never fails."""


@dataclass(frozen=True, slots=True)
class Constant:
    value: Value
    kinds: Kinds


@dataclass(frozen=True, slots=True)
class FieldValue:
    field: Field

    @property
    def kinds(self) -> Kinds:
        return TEXT


@dataclass(frozen=True, slots=True)
class Call:
    """A function with the arguments that are written out; in a pipeline one more comes from the left."""

    function: Function
    arguments: tuple["Operand", ...]
    kinds: Kinds


@dataclass(frozen=True, slots=True)
class Pipeline:
    """`first | stages[0] | stages[1] …`: each stage's last argument is what stands before it."""

    first: "Operand | Call"
    stages: tuple[Call, ...]

    @property
    def kinds(self) -> Kinds:
        return self.stages[-1].kinds if self.stages else self.first.kinds


Operand = Constant | FieldValue | Pipeline


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """`{{pipeline}}`: its value is put in."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Branch:
    condition: Pipeline
    body: "Block"


@dataclass(frozen=True, slots=True)
class If:
    """The body of the first branch whose condition is true, else `otherwise`. `else if` is a branch, not a nesting."""

    branches: tuple[Branch, ...]
    otherwise: "Block"


Node = Text | Action | If
Block = tuple[Node, ...]
