"""How keys change hands: who should own what + who holds what → revoke and grant steps.

Decides, for each key, the next step towards its home; refuses to know processes, messages and time beyond a `now`.
Invariant: a key is granted only when nobody can be holding it any more, that is after its last holder acknowledged
the revoke or is known to be dead. Each grant carries a higher epoch than every grant before it, of any key, so that
an answer that comes late can be told from one that counts.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace


class Grant(Struct, frozen=True, kw_only=True):
    slot: str
    key: str
    epoch: int


class Revoke(Struct, frozen=True, kw_only=True):
    slot: str
    key: str
    epoch: int


Step = Grant | Revoke


class Hold(Struct, frozen=True, kw_only=True):
    """What one slot's process was granted and may still be running."""

    slot: str
    epoch: int
    started: bool = False
    revoked_at: float | None = None
    problem: str = ""
    """Why the last attempt to start or stop it failed; empty when it did not."""

    @property
    def revoking(self) -> bool:
        return self.revoked_at is not None


class Plan:
    """The ledger of keys. Feed it facts; `steps()` returns what to do about them, each step exactly once.

    Grants nothing before `lead`.
    """

    def __init__(self) -> None:
        self._next_epoch: int | None = None
        self._homes: dict[str, str] = {}
        self._holds: dict[str, Hold] = {}
        self._ready: dict[str, None] = {}  # dicts as ordered sets: what a plan does must not hang on hash order
        self._dirty: dict[str, None] = {}
        self._revoked: dict[str, None] = {}

    @property
    def revoking(self) -> int:
        """How many keys wait for the acknowledgement of a revoke."""
        return len(self._revoked)

    @property
    def leads(self) -> bool:
        return self._next_epoch is not None

    # facts

    def lead(self, first_epoch: int) -> None:
        """From now on keys may be granted, with epochs from `first_epoch` on: above those of every earlier plan over
        the same keys. Raises ValueError if it leads already, or if epochs would not begin above 0, which is none."""
        if self._next_epoch is not None:
            raise ValueError(f"it leads already, and the next epoch is {self._next_epoch}")
        if first_epoch < 1:
            raise ValueError(f"first_epoch must be 1 or more, not {first_epoch}")
        self._next_epoch = first_epoch
        self._dirty.update(dict.fromkeys(self._homes))

    def want(self, homes: Mapping[str, str]) -> None:
        """These keys, each at this slot, and no others."""
        for key in self._homes:
            if key not in homes:
                self._dirty[key] = None
        for key, slot in homes.items():
            if self._homes.get(key) != slot:
                self._dirty[key] = None
        self._homes = dict(homes)

    def ready(self, slot: str) -> None:
        """A fresh process fills the slot and takes grants. It must hold nothing yet."""
        if any(hold.slot == slot for hold in self._holds.values()):
            raise ValueError(f"{slot} is ready, but its last process was never reported dead")
        self._ready[slot] = None
        self._dirty.update((key, None) for key, home in self._homes.items() if home == slot)

    def leaving(self, slot: str) -> None:
        """The slot's process takes no more grants, but may go on holding what it has until it is dead."""
        self._ready.pop(slot, None)

    def dead(self, slot: str) -> None:
        """The slot's process is gone for certain: what it held is free."""
        self._ready.pop(slot, None)
        for key in [key for key, hold in self._holds.items() if hold.slot == slot]:
            self._free(key)

    def started(self, slot: str, key: str, epoch: int) -> bool:
        """The holder says that the key runs. False: the word is from an earlier grant and says nothing."""
        hold = self._current(slot, key, epoch)
        if hold is None:
            return False
        self._holds[key] = replace(hold, started=True, problem="")
        return True

    def stopped(self, slot: str, key: str, epoch: int) -> bool:
        """The holder acknowledges a revoke: nothing of the key runs there. False: nobody asked, so it says nothing."""
        hold = self._current(slot, key, epoch)
        if hold is None or not hold.revoking:
            return False
        self._free(key)
        return True

    def failed(self, slot: str, key: str, epoch: int, problem: str) -> bool:
        """The holder could not start or stop the key, and still holds it."""
        hold = self._current(slot, key, epoch)
        if hold is None:
            return False
        self._holds[key] = replace(hold, problem=problem)
        return True

    def postpone(self, late_s: float) -> None:
        """The judge itself was stalled that long: what was acknowledged meanwhile could not be heard."""
        for key in self._revoked:
            hold = self._holds[key]
            assert hold.revoked_at is not None
            self._holds[key] = replace(hold, revoked_at=hold.revoked_at + late_s)

    # decisions

    def steps(self, now: float) -> list[Step]:
        """What is to be done now; a step that is returned is taken as done."""
        dirty, self._dirty = self._dirty, {}
        return [step for key in dirty if (step := self._step(key, now)) is not None]

    def overdue(self, now: float, revoke_timeout_s: float) -> list[str]:
        """Slots that owe the acknowledgement of a revoke for longer than `revoke_timeout_s`."""
        late: dict[str, None] = {}
        for key in self._revoked:  # oldest first
            hold = self._holds[key]
            if hold.revoked_at is None or now - hold.revoked_at < revoke_timeout_s:
                break
            late[hold.slot] = None
        return list(late)

    def oldest_revoke_at(self) -> float | None:
        """When the revoke that waits longest for its acknowledgement was sent; None if none waits."""
        key = next(iter(self._revoked), None)
        return None if key is None else self._holds[key].revoked_at

    def holder(self, key: str) -> Hold | None:
        return self._holds.get(key)

    def holds(self) -> Mapping[str, Hold]:
        return self._holds

    def homes(self) -> Mapping[str, str]:
        return self._homes

    def _step(self, key: str, now: float) -> Step | None:
        home, hold = self._homes.get(key), self._holds.get(key)
        if hold is not None:
            if hold.revoking or hold.slot == home:
                return None  # a revoke cannot be taken back; its acknowledgement brings the key here again
            self._holds[key] = replace(hold, revoked_at=now)
            self._revoked[key] = None
            return Revoke(slot=hold.slot, key=key, epoch=hold.epoch)
        if home is None or home not in self._ready or self._next_epoch is None:
            return None
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        self._holds[key] = Hold(slot=home, epoch=epoch)
        return Grant(slot=home, key=key, epoch=epoch)

    def _current(self, slot: str, key: str, epoch: int) -> Hold | None:
        hold = self._holds.get(key)
        return hold if hold is not None and (hold.slot, hold.epoch) == (slot, epoch) else None

    def _free(self, key: str) -> None:
        del self._holds[key]
        self._revoked.pop(key, None)
        self._dirty[key] = None
