"""One call on its way: what the parts of delivery know of it, for as long as this process has it.

What must survive the process stands in the row (`khook.core.incident.Call`); this is the rest.
"""

import asyncio
from dataclasses import dataclass, field

from khook.agents.outcome import AgentRequest, Progress
from khook.core.breaker import Admission
from khook.core.incident import CallId, CallReason, Row
from khook.worker.rowbook import RowKey
from khook.worker.table import HookTable


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One call to deliver. `hold_s`: how long its first send waits for an Event's better text, or for its group."""

    table: HookTable
    key: RowKey
    call_id: CallId
    hold_s: float = 0.0
    found_after_crash: bool = False
    claimed: bool = False
    """Its id stands in the status already, as Pending."""
    request: AgentRequest | None = None
    """Frozen at the first send: every attempt sends the same bytes."""
    text_came: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Progress | None = None
    """Of the send under way; None between sends."""
    cannot_be_asked: bool = False
    """The send under way speaks a protocol that nobody can ask afterwards."""
    doubtful: bool = False
    """An earlier send may have been taken: nothing is sent before a reconcile has said no."""
    believe_at: float = 0.0
    """From when on (monotonic) such a "no" is believed."""
    admission: Admission = Admission.NO
    """What the parking lot let it go with; NO asks the breaker."""
    probes: int = 0
    """How often it was its agent's probe and failed."""
    key_number: int = 0
    """Which key its latest attempt was made with, as the parking lot counts them."""
    waits_for: str = ""
    """What was last said about why it is parked: the same again is no news."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the parking lot when its wait is over."""

    @property
    def row(self) -> Row | None:
        return self.table.row(self.key, self.call_id)

    @property
    def wanted(self) -> bool:
        """Its Hook and its entry are there, and it was not suspended while it waited."""
        row = self.row
        if row is None or row.call is None or self.table.entry(self.key) is None:
            return False
        return row.call.reason is not CallReason.SUSPENDED
