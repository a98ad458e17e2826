"""What an agent is told about an incident: the entry's prompt, rendered.

It comes from the row's `Facts` alone, so that any owner of the namespace renders the same text again after a crash.
The facts' text was stripped and cut when it was kept (`khook.core.rows`); here only the whole is bounded.
"""

from typing import Final

from khook.core.incident import Facts
from khook.core.moment import rfc3339_seconds
from khook.core.signal import EventType
from khook.core.template import Field, Template
from khook.core.text import cut

# More than any hand-written prompt with its facts; a model's context and an agent's body limit are larger.
PROMPT_MAX_BYTES: Final = 32 * 1024


def render_prompt(template: Template, facts: Facts, *, event_type: EventType, namespace: str) -> str:
    """The prompt, at most `PROMPT_MAX_BYTES` of UTF-8."""
    time = rfc3339_seconds(facts.time)
    values = {
        Field.RESOURCE_NAME: facts.pod,
        Field.EVENT_TIME: time,
        Field.NAMESPACE: namespace,
        Field.EVENT_MESSAGE: facts.message,
        Field.EVENT_TYPE: event_type.value,
        Field.REASON: facts.reason,
        Field.MESSAGE: facts.message,
        Field.TIMESTAMP: time,
    }
    return cut(template.render(values), max_bytes=PROMPT_MAX_BYTES)
