"""Seeds of worlds in which khook once broke a promise, each with what it was. They are lived through before all others.

A seed means the world that `draw` makes of it: a change there empties this list, and each entry has to be found anew
(by the mutant that is its bug).
"""

from typing import Final

SEEDS: Final[dict[int, str]] = {
    5: "a pod that got well while its namespace could not be watched was told as stuck",
    15: "a pod made while nobody watched was told as stuck, from the first of the lines that came afterwards",
    214: "a stuck pod was told once more by its next owner, whose clock saw another beginning of it",
    14: "an Event of trouble that had passed was held for, and the next trouble called at once",
    383: "a hold was shortened by an Event of trouble that had passed, which the next owner listed",
    386: "a line that a watch brought late, of a pod that was well, forgot what Events had told since",
    56: "pods that had failed in the incident before, and were well, joined a group's call after a restart",
}


def seeds() -> list[int]:
    return list(SEEDS)
