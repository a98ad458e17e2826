"""What an agent is told about an incident: the entry's prompt, rendered, and the `context` of the execute protocol.

Both come from the row's `Facts` alone, so that any owner of the namespace renders the same text again after a
crash. The facts' text was stripped and cut when it was kept (`khook.core.rows`); here only the whole is bounded.
"""

from typing import Final

from khook.core.incident import Facts, Row
from khook.core.moment import rfc3339_seconds
from khook.core.template import Field, Template
from khook.core.text import cut

# More than any hand-written prompt with its facts; a model's context and an agent's body limit are larger.
PROMPT_MAX_BYTES: Final = 32 * 1024


def render_prompt(template: Template, row: Row, *, namespace: str) -> str:
    """The prompt for a row that still has its facts, at most `PROMPT_MAX_BYTES` of UTF-8."""
    facts = _facts(row)
    time = rfc3339_seconds(facts.time)
    values = {
        Field.RESOURCE_NAME: facts.pod,
        Field.EVENT_TIME: time,
        Field.NAMESPACE: namespace,
        Field.EVENT_MESSAGE: facts.message,
        Field.EVENT_TYPE: row.event_type.value,
        Field.REASON: facts.reason,
        Field.MESSAGE: facts.message,
        Field.TIMESTAMP: time,
    }
    return cut(template.render(values), max_bytes=PROMPT_MAX_BYTES)


def context_of(row: Row, *, namespace: str) -> dict[str, str]:
    """The `context` object of `POST /v1/agents/{agentId}/execute`, for a row that still has its facts."""
    facts = _facts(row)
    return {
        "eventName": row.event_type.value,
        "eventTime": rfc3339_seconds(facts.time),
        "resourceName": facts.pod,
        "namespace": namespace,
        "eventMessage": facts.message,
    }


def _facts(row: Row) -> Facts:
    assert row.facts is not None, "a call that has ended is not asked again"
    return row.facts
