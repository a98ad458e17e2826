"""A prompt that is refused: what is wrong with it, where, and what is allowed instead."""


class TemplateError(ValueError):
    """A prompt that cannot be rendered: what is wrong, and where (line and column count from 1, in characters)."""

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message = message
        self.line = line
        self.column = column


def refusal(text: str, at: int, message: str) -> TemplateError:
    """What is wrong with the character `at` of `text`."""
    return TemplateError(message, line=text.count("\n", 0, at) + 1, column=at - text.rfind("\n", 0, at))
