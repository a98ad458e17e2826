"""What `/readyz` makes of reports, and of reports that do not come any more."""

from typing import Any

from khook.messages import NamespaceReport
from khook.supervisor.health import Health

SHOP = ["shop", "bank"]


def forbidden(namespace: str) -> NamespaceReport:
    return NamespaceReport(namespace=namespace, deaf_s=0.0, live=False, forbidden=True, reason="forbidden")


def body(health: Health, now_at: float) -> dict[str, Any]:
    return health.ready(now_at, hooks_deaf_s=0.0)[1]


def watched() -> Health:
    """Two namespaces: `shop` is forbidden by the last report, `bank` is live."""
    health = Health(hooks_synced=True)
    health.wanted(SHOP, now_at=0.0)
    health.reported(SHOP, [forbidden("shop")], now_at=10.0)
    return health


def test_a_forbidden_namespace_is_named_and_does_not_count() -> None:
    said = body(watched(), 20.0)
    assert (said["ready"], said["forbidden"]) == (True, ["shop"])


def test_forbidden_lapses_90_s_after_the_last_report_that_said_so() -> None:
    health = watched()
    health.reported(["bank"], [], now_at=99.0)  # shop's worker says nothing any more
    assert body(health, 99.9)["forbidden"] == ["shop"]
    said = body(health, 100.0)
    assert (said["ready"], said["forbidden"]) == (False, [])
    assert [deaf["namespace"] for deaf in said["deaf"]] == ["shop"]


def test_an_answer_that_changes_to_something_else_is_not_forbidden_any_more() -> None:
    health = watched()
    away = NamespaceReport(namespace="shop", deaf_s=40.0, live=False, forbidden=False, reason="unavailable")
    health.reported(SHOP, [away], now_at=50.0)
    said = body(health, 95.0)
    assert (said["ready"], said["forbidden"], said["deafCount"]) == (False, [], 1)
