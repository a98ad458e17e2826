"use strict";
// Every five seconds the page's content is fetched anew and put in place of the old: what is unfolded stays unfolded,
// and nothing moves while the page is hidden, text is selected, or the reader has switched it off.
const live = document.getElementById("live");
const stale = document.getElementById("stale");

async function refresh() {
  if (document.hidden || !live.checked || !getSelection().isCollapsed) return;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(4500) });
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement?.closest("[id]")?.id;
    for (const one of document.querySelectorAll("details[open][id]")) {
      fresh.getElementById(one.id)?.setAttribute("open", "");
    }
    for (const part of ["standing", "content"]) {
      document.getElementById(part).replaceWith(fresh.getElementById(part));
    }
    document.title = fresh.title;
    if (focused) document.querySelector(`#${CSS.escape(focused)} > summary`)?.focus({ preventScroll: true });
    stale.hidden = true;
  } catch {
    stale.hidden = false;
  }
}

live.parentElement.hidden = false;
setInterval(refresh, 5000);
document.addEventListener("visibilitychange", refresh);
