"""What the rooms of one worker share: made once in `khook.worker.process`, handed down whole.

Collaborators only; a number that one part alone needs is that part's own argument.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from khook.core.configure import Configured
from khook.core.incident import IncidentRules
from khook.kube.audit import AuditTrail
from khook.kube.client import KubeClient
from khook.kube.hooks import Hooks
from khook.kube.watch import WatchCounters
from khook.log import Log
from khook.seams import Clock
from khook.worker.counters import EventCounters, SuppressedCounters
from khook.worker.delivery import Delivery
from shards.permission import Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    clock: Clock
    now: Callable[[], datetime]
    """The API server's clock: our own plus the offset that its answers show. Every persisted time is by it."""
    randomness: random.Random
    permission: Permission
    """Without it no status is written and no call begun: another leader may have given our namespaces away."""
    client: KubeClient
    hooks: Hooks
    delivery: Delivery
    audit: AuditTrail
    rules: IncidentRules
    configure: Callable[[dict[str, Any]], Configured]
    default_cooldown: timedelta
    calls_per_hook_hour: int
    """0: no limit."""
    stuck_pending: timedelta
    events: EventCounters
    suppressed: SuppressedCounters
    watches: WatchCounters
    broken: Callable[[BaseException], None]
    """A defect that one namespace cannot survive: ends the worker, whose successor starts from what is written."""
    log: Log
