"""The status page: what it says in each situation, that no text can become markup, and that it stays small."""

import base64
import hashlib
import re
import time
from collections.abc import Callable
from datetime import timedelta
from html import escape
from html.parser import HTMLParser

import pytest
from support.status import EVIL, LEADER, NOW, Shard, incident, leading, quiet, standby

from khook.summary import MOST_FIRING, MOST_RESOLVED, WorkerSummary
from khook.supervisor.status_document import AgentAccessStatus, Status
from khook.supervisor.status_page import (
    POLICY,
    SHOWN_FIRING,
    SHOWN_NAMESPACES,
    TEXT_MOST_CHARS,
    ago,
    duration,
    number,
    render,
)
from khook.supervisor.summaries import Told


class Seen(HTMLParser):
    """A page as a browser takes it apart: its elements, their attributes, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.contents: dict[str, list[str]] = {"style": [], "script": []}
        self._inside = ""
        self._texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in self.contents:
            self.contents[self._inside].append(data)
        else:
            self._texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self._texts))


def seen(status: Status) -> Seen:
    return Seen(render(status).decode())


def told(*incidents: int, firing: int) -> Told:
    many = tuple(incident(number) for number in incidents)
    return Told(summaries={"w0": WorkerSummary(hooks=1, firing=firing, incidents=many)})


# --- what it says -----------------------------------------------------------------------------------------------


def test_a_leader_shows_incidents_calls_agents_and_workers() -> None:
    text = seen(leading()).text
    for words in (
        f"Leader {LEADER}",
        "Epoch 1",
        "Up 3 d 4 h",
        "Firing now 3",
        "Pod web-7c9f6d5b8-00001",
        "shop / storefront",
        "7 min ago",
        "Pending /Parked",
        "3 attempts",
        "agent kagent/x: HTTP 404",
        "4f1c2f0e-8a5b-4c1d-9e2f-000000000001",
        "Over lately 1",
        "Parked the agent cannot be asked just now 2",
        "open on w0, a call may try in 17 s",
        "2 breaker open",
        "AgentNotFound kagent does not know its agent",
        "w1 running 101",
        "SIGKILL",
    ):
        assert words in text, words


def test_without_a_hook_it_says_what_to_do_first() -> None:
    text = seen(quiet()).text
    assert "No Hook yet: khook watches the namespaces that have one." in text
    assert "No call waits." in text
    assert "0 firing" in text


def test_while_the_hooks_are_not_known_it_does_not_say_that_there_is_none() -> None:
    text = seen(quiet(ready=False, reasons=("hooks not listed yet",))).text
    assert "Not ready hooks not listed yet" in text
    assert "No Hook yet" not in text


def test_with_hooks_and_no_incident_it_says_that_nothing_fires() -> None:
    assert "Nothing fires:" in seen(leading(told=Told(summaries={"w0": WorkerSummary(hooks=1)}))).text


def test_a_standby_names_the_leader_and_the_commands_and_shows_no_incident() -> None:
    forward, ask = "kubectl port-forward -n ops khook-0 8082", "kubectl exec -n ops khook-0 -- khook shards"
    text = seen(standby(port_forward=forward, ask_the_leader=ask)).text
    assert "stands by" in text
    assert f"{LEADER} leads" in text
    assert forward in text
    assert ask in text
    assert "Firing now" not in text


def test_a_standby_without_a_leader_says_so() -> None:
    text = seen(standby(None)).text
    assert "nobody leads" in text
    assert "Nobody leads yet." in text


def test_what_is_wrong_stands_at_the_top() -> None:
    access = AgentAccessStatus(key=False, needed=True, command="kubectl create secret generic kagent-credentials")
    silent = Told(summaries={}, silent=("w1",))
    text = seen(leading(ready=False, reasons=("stopping",), agent_access=access, told=silent)).text
    assert "not ready" in text
    assert "Not ready stopping" in text
    assert "No API key for kagent kubectl create secret generic kagent-credentials" in text
    assert "No answer in time from w1" in text


def test_a_key_that_nobody_needs_is_not_asked_for() -> None:
    access = AgentAccessStatus(key=False, needed=False, command="kubectl create secret")
    assert "No API key" not in seen(leading(agent_access=access)).text


# --- what others wrote ------------------------------------------------------------------------------------------


def hostile_leader(text: str) -> Status:
    access = AgentAccessStatus(key=False, needed=True, command=text, problems=[text])
    return leading(text=text, ready=False, reasons=(text,), agent_access=access)


def hostile_standby(text: str) -> Status:
    return standby(text, ask_the_leader=text, port_forward=text, reasons=[text], ready=False)


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("make", [hostile_leader, hostile_standby])
def test_no_text_becomes_markup(text: str, make: Callable[[str], Status]) -> None:
    """The elements and attributes are those of a harmless page, whatever the names are."""
    page, plain = seen(make(text)), seen(make("harmless"))
    assert page.elements == plain.elements
    assert [name for name, _ in page.attributes] == [name for name, _ in plain.attributes]
    assert page.contents == plain.contents


@pytest.mark.parametrize("text", EVIL[:3])
def test_a_hostile_text_is_shown_as_it_is(text: str) -> None:
    page = render(leading(text=text)).decode()
    assert escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page


def test_no_control_bidi_or_hidden_character_reaches_the_page() -> None:
    for text in EVIL[4:6]:
        page = render(leading(text=text)).decode()
        assert all(one.isprintable() or one == "\n" for one in page)


def test_a_long_text_is_cut() -> None:
    longest = max(re.findall(r"w{20,}…?", render(leading(text="w" * 5_000)).decode()), key=len)
    assert longest == "w" * TEXT_MOST_CHARS + "…"


def test_only_what_stands_in_the_page_may_run_or_style_it() -> None:
    page = seen(leading())

    def allowed(contents: list[str]) -> str:
        (content,) = contents
        return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"

    directives = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert directives == {
        "default-src": "'none'",
        "style-src": allowed(page.contents["style"]),
        "script-src": allowed(page.contents["script"]),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    names = {name for name, _ in page.attributes}
    assert not names & {"style", "onclick", "onload", "onerror"}
    urls = [value for name, value in page.attributes if name in ("href", "src", "action")]
    assert set(urls) == {"data:,", "status.json"}


# --- its form ---------------------------------------------------------------------------------------------------


def test_tables_have_captions_and_scopes_and_ids_are_unique() -> None:
    for status in (leading(), quiet(), standby()):
        page = seen(status)
        assert page.elements.count("table") == page.elements.count("caption")
        headings = page.elements.count("th")
        assert [name for name, _ in page.attributes].count("scope") == headings
        ids = [value for name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        labels = {value for name, value in page.attributes if name == "aria-labelledby"}
        assert labels <= set(ids)
        assert page.elements.count("h1") == 1


def test_every_colour_of_a_text_can_be_read_on_its_ground() -> None:
    """WCAG 2.2 AA: 4.5 to 1, in both schemes."""
    style = seen(leading()).contents["style"][0]
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in style.split("@media")[:2])
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        pairs = [(name, f"{name}-tint") for name in ("good", "warn", "bad", "busy", "plain")]
        pairs += [(name, ground) for name in ("text", "quiet", "link", "bad") for ground in ("surface", "ground")]
        pairs.append(("text", "plain-tint"))
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (8.9, "8 s"),
        (60, "1 min"),
        (719, "11 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_duration_has_the_two_places_that_matter(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_time_that_is_ahead_of_ours_is_now() -> None:
    assert ago(NOW + timedelta(seconds=3), NOW) == "now"
    assert ago(NOW - timedelta(seconds=90), NOW) == "1 min ago"
    assert ago(None, NOW) == "-"


def test_numbers_are_written_to_be_read() -> None:
    assert [number(one) for one in (0, 0.04, 2.25, 1234.5, 12_345)] == ["0", "0.04", "2.2", "1,234", "12,345"]


# --- its size ---------------------------------------------------------------------------------------------------


def test_of_too_many_incidents_some_are_shown_and_the_rest_is_counted() -> None:
    text = seen(leading(told=told(*range(SHOWN_FIRING + 5), firing=1_234))).text
    assert "Firing now 1,234" in text
    assert text.count("Pod web-") == SHOWN_FIRING
    assert f"and {1_234 - SHOWN_FIRING:,} incidents more" in text


def test_a_namespace_in_trouble_is_among_the_few_that_are_shown_of_a_slot() -> None:
    status = leading(text="ill", shard=Shard(slots=1, namespaces=1_000))
    text = seen(status).text
    assert text.count("team-") == SHOWN_NAMESPACES - 1
    assert "ill ill" in text  # its name and its problem, though it weighs less than all others
    assert f"and {1_000 - SHOWN_NAMESPACES} quieter ones" in text


def test_a_page_of_sixteen_full_slots_and_ten_thousand_namespaces_is_small_and_made_at_once() -> None:
    full = WorkerSummary(
        hooks=600,
        firing=MOST_FIRING,
        resolved=MOST_RESOLVED,
        incidents=tuple(incident(one) for one in range(MOST_FIRING))
        + tuple(incident(one, status="resolved") for one in range(MOST_RESOLVED)),
    )
    status = leading(
        shard=Shard(slots=16, namespaces=10_000), told=Told(summaries={f"w{one}": full for one in range(16)})
    )
    since = time.process_time()
    page = render(status)
    took_s = time.process_time() - since
    assert len(page) < 512 * 1024
    assert took_s < 1.0  # some 30 ms; a page that grew with the namespaces would take seconds
