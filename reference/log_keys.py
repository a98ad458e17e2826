"""The table of log keys in docs/operations.md, from the registry in `khook.log`."""

from khook.log import Key
from reference.tables import members, table


def log_keys() -> str:
    return table(("key", "is"), [(f"`{key}`", said) for key, said in members(Key)])
