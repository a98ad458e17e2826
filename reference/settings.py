"""The README's table of settings: names, defaults, what is allowed, and what each is, from `khook.settings`."""

from datetime import timedelta
from typing import Any, Final

from pydantic.fields import FieldInfo

from khook.settings import ALIASES, Rule, Settings
from reference.tables import code, docstrings, table

_UNSET: Final = " Unset: "
"""What stands behind it is the default, in words."""
_UNITS: Final = ((3600, "h"), (60, "m"))
"""A minute is `60s` and two are `2m`, as people write them."""


def settings() -> str:
    """The table, in the order of the class."""
    said = docstrings(Settings)
    rows = [_row(name, field, said[name]) for name, field in Settings.model_fields.items()]
    return table(("name", "default", "allowed", "is"), rows)


def _row(name: str, field: FieldInfo, said: str) -> tuple[str, str, str, str]:
    meaning, _, unset = said.partition(_UNSET)
    default = unset.removesuffix(".") if unset else f"`{_shown(name, field.default)}`"
    aliases = [alias for alias, of in ALIASES.items() if of == field.alias]
    if aliases:
        meaning += f" Also as {code(aliases)}."
    return f"`{field.alias}`", default, _allowed(field), meaning


def _allowed(field: FieldInfo) -> str:
    return next((one.allowed for one in field.metadata if isinstance(one, Rule)), "")


def _shown(name: str, default: Any) -> str:
    """A default as one writes it into the environment; a number of seconds has its unit last in its name."""
    match default:
        case bool():
            return str(default).lower()
        case timedelta():
            return _duration(default.total_seconds())
        case float() if name.endswith("_s"):
            return _duration(default)
    return str(default)


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
