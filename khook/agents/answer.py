"""What a Hook's status keeps of an agent's answer.

An agent may say anything, also the key that it was sent (a debugging agent prints its request). So its text becomes
one plain line, loses our secrets, and only then is cut: half a secret would be found by nobody.
"""

from typing import Final

from khook.agents.outcome import MAX_RESULT_BYTES
from khook.core.text import cut, plain
from khook.log import redacted

# The beginning that is looked at. What is kept of it is 1 KiB, and the longest key that khook can have is 8 KiB: one
# that begins in what is kept is seen whole, also behind several others.
LOOKED_AT_BYTES: Final = 64 * 1024


def kept(text: str) -> str:
    """At most 1 KiB of it, as one line without control or bidi characters and without secrets of ours."""
    return cut(redacted(plain(text.strip(), max_bytes=LOOKED_AT_BYTES)), max_bytes=MAX_RESULT_BYTES)
