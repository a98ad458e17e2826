"""The status page as a reader's browser shows it: no complaint, no overflow, no foreign script, and fresh by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from support import chromium
from support.chromium import Tab
from support.status import EVIL, Shard, incident, leading, quiet, standby

from khook.address import Address
from khook.summary import WorkerSummary
from khook.supervisor.server import Servers
from khook.supervisor.status_document import Status
from khook.supervisor.summaries import Told

pytestmark = pytest.mark.chromium

PHONE, TABLET, DESK = 390, 800, 1280
LOOPBACK = "127.0.0.1"

OPENED_AND_MEASURED = """(() => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  return document.documentElement.scrollWidth;
})()"""

UNTIL = """new Promise((done) => {
  const look = async () => { await refresh(); (%s) ? done(true) : setTimeout(look, 50); };
  look();
})"""


class Site:
    """Answers with whatever document it holds."""

    def __init__(self, status: Status) -> None:
        self.status = status

    async def __call__(self) -> Status:
        return self.status


@asynccontextmanager
async def served(site: Site) -> AsyncIterator[str]:
    """The page's address, as long as it is served."""
    servers = Servers(exposition=lambda: b"", ready=lambda: (True, {}), status=site)
    try:
        at = await servers.start(metrics_port=0, health_port=0, status_address=Address(LOOPBACK, 0), host=LOOPBACK)
        yield f"http://{at.status_address}/"
    finally:
        await servers.close()


def browsing(test: Callable[[Tab], Awaitable[None]]) -> None:
    async def main() -> None:
        binary = chromium.find()
        assert binary is not None
        async with chromium.tab(binary) as tab:
            await test(tab)

    asyncio.run(main())


def everything() -> dict[str, Status]:
    many = tuple(incident(number) for number in range(50))
    full = Told(summaries={f"w{slot}": WorkerSummary(hooks=9, firing=99, incidents=many) for slot in range(16)})
    return {
        "everyday": leading(),
        "quiet": quiet(),
        "in trouble": leading(ready=False, reasons=("2 namespaces without a live watch for 90 s",)),
        "standby": standby(ask_the_leader="kubectl exec -n ops khook-0 -- khook shards"),
        "nobody": standby(None),
        "large": leading(shard=Shard(slots=16, namespaces=10_000), told=full),
        **{f"hostile {number}": leading(text=text) for number, text in enumerate(EVIL)},
    }


def test_every_page_fits_every_width_without_a_complaint_and_runs_nothing_of_others() -> None:
    """With everything unfolded, where long names have least room."""

    async def test(tab: Tab) -> None:
        for name, status in everything().items():
            async with served(Site(status)) as url:
                for width in (PHONE, TABLET, DESK):
                    await tab.open(url, width=width)
                    assert await tab.evaluate(OPENED_AND_MEASURED) <= width, (name, width)
                    assert await tab.evaluate("document.title") != "owned", name
                    assert tab.complaints == [], (name, width)

    browsing(test)


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_screen_reader_finds_named_tables_with_headers_also_where_they_look_like_cards(width: int) -> None:
    async def test(tab: Tab) -> None:
        async with served(Site(leading())) as url:
            await tab.open(url, width=width)
            tree = (await tab.command("Accessibility.getFullAXTree"))["nodes"]
        found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
        assert [name for role, name in found if role == "table"] == [
            "Incidents that fire now, the latest first",
            "Calls that are not sent for now, and why",
            "Hooks that are not Ready; kubectl describe hook says more",
            "Agents that were called or are to be, with their circuit breakers",
            "Incidents that are over, the latest first",
            "Each owns its share of the namespaces; after a crash the next process in the slot gets the same ones back",
        ]
        assert ("columnheader", "Agent") in found
        assert ("rowheader", "w0") in found

    browsing(test)


def test_it_is_dark_where_the_reader_wants_it_dark() -> None:
    async def test(tab: Tab) -> None:
        grounds = []
        async with served(Site(leading())) as url:
            for scheme in ("light", "dark"):
                await tab.open(url, scheme=scheme)
                grounds.append(await tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds == ["rgb(244, 246, 248)", "rgb(14, 19, 24)"]

    browsing(test)


def test_it_refreshes_itself_and_keeps_unfolded_what_the_reader_unfolded() -> None:
    async def test(tab: Tab) -> None:
        site = Site(leading())
        async with served(site) as url:
            await tab.open(url)
            await tab.evaluate("document.getElementById('slot-w0').open = true")
            await tab.evaluate("document.querySelector('#slot-w0 > summary').focus()")
            site.status = leading(told=Told(summaries={"w0": WorkerSummary(hooks=1)}))
            assert await tab.evaluate(UNTIL % "document.body.innerText.includes('Nothing fires')")
            assert await tab.evaluate("document.title") == "khook"
            assert await tab.evaluate("document.getElementById('slot-w0').open") is True
            assert await tab.evaluate("document.getElementById('slot-w1').open") is False
            assert await tab.evaluate("document.activeElement.parentElement.id") == "slot-w0"
            await tab.evaluate("document.getElementById('live').checked = false")
            site.status = leading()
            await tab.evaluate("refresh()")
            assert await tab.evaluate("document.title") == "khook"  # switched off, nothing moves
        assert tab.complaints == []

    browsing(test)


def test_a_page_that_gets_no_answer_says_that_it_is_old() -> None:
    async def test(tab: Tab) -> None:
        async with served(Site(leading())) as url:
            await tab.open(url)
            assert await tab.evaluate("document.getElementById('stale').hidden") is True
        assert await tab.evaluate(UNTIL % "!document.getElementById('stale').hidden")
        assert await tab.evaluate("document.body.innerText.includes('khook does not answer')")

    browsing(test)


def test_its_policy_stops_what_an_injection_would_need() -> None:
    async def test(tab: Tab) -> None:
        async with served(Site(leading())) as url:
            await tab.open(url)
            for attempt in (
                "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))",
                "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=document.title=1>')",
                "document.body.insertAdjacentHTML('beforeend', '<iframe src=/status.json></iframe>')",
                "document.body.insertAdjacentHTML('beforeend', '<p style=color:red>')",
                "fetch('http://192.0.2.1/').catch(() => 0)",
            ):
                before = len(tab.complaints)
                await tab.evaluate(f"{attempt}; new Promise((done) => setTimeout(done, 50))")
                assert any("Content Security Policy" in one for one in tab.complaints[before:]), attempt
            assert await tab.evaluate("document.title") == "3 firing · khook"

    browsing(test)
