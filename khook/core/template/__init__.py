"""Prompt templates: the subset of Go's text/template that Hooks use.

It has the fields of an incident (`{{.Reason}}`), comments, trim markers, `if`, `else if` and `else`, pipelines,
parentheses, texts, whole numbers and `true` and `false` as Go writes them, and the functions of
`khook.core.template.functions`. What it accepts means what it means in Go (https://pkg.go.dev/text/template), with
sprig's functions; everything else is refused by `parse`, with its line and column, when the Hook is read. So nothing
can fail when an incident is on.

The data flow: `lexer` → `parser` → `nodes` → `render`. `functions` and `gotext` are what values go through.
"""

from khook.core.template.error import TemplateError
from khook.core.template.nodes import Field
from khook.core.template.parser import DEPTH_MAX, NODES_MAX, SOURCE_MAX_CHARS, parse
from khook.core.template.render import MADE_MAX_CHARS, OUTPUT_MAX_CHARS, Template

__all__ = [
    "DEPTH_MAX",
    "MADE_MAX_CHARS",
    "NODES_MAX",
    "OUTPUT_MAX_CHARS",
    "SOURCE_MAX_CHARS",
    "Field",
    "Template",
    "TemplateError",
    "parse",
]
