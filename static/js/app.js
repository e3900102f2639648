// Live refresh, ticking times, keyboard. The rules: never move what is read, never steal the focus,
// nothing while the tab is hidden or the reader is in the middle of something.
"use strict";
(function () {
  const EVERY = "omnidash-refresh"; // seconds between refreshes, remembered
  const SLOWEST = 60;
  let every = 2;
  let errors = 0;
  let timer = 0;
  let asking = false;
  let askedFor = ""; // address of the refresh under way
  const digests = new Map(); // part's id -> digest of what is on the screen

  const root = () => document.querySelector("[data-live]");

  // --- Live refresh ---

  function busy() {
    const selection = document.getSelection();
    const at = document.activeElement;
    const live = root();
    return document.hidden
      || Boolean(document.querySelector("dialog[open], [popover]:popover-open:not(#sidebar)"))
      || (selection && !selection.isCollapsed && live && live.contains(selection.anchorNode))
      || Boolean(at && live && live.contains(at) && at.matches("input:not([data-pick], [data-pick-all]), textarea, select"));
  }

  function say(word, state) {
    const dot = document.querySelector("[data-live-dot]");
    if (!dot) return;
    dot.className = `status-dot ${state}`;
    document.querySelector("[data-live-word]").textContent = word;
  }

  function plan() {
    clearTimeout(timer);
    document.querySelector(".live-control")?.toggleAttribute("hidden", !root());
    if (!every || !root()) {
      say("Paused", "");
      return;
    }
    const wait = Math.min(SLOWEST, every * 2 ** Math.min(errors, 5));
    const failing = errors || document.querySelector("#notice[data-outage]");
    say(failing ? "Retrying" : "Live", failing ? "status-red" : "status-green");
    timer = setTimeout(refresh, wait * 1000);
  }

  function refresh() {
    if (busy() || asking) {
      plan();
      return;
    }
    htmx.trigger(root(), "live");
  }

  function isLive(event) {
    return event.detail.ctx.sourceElement === root();
  }

  document.addEventListener("htmx:config:request", (event) => {
    const context = event.detail.ctx;
    if (!isLive(event)) {
      if (context.request.method !== "GET") return;
      const body = context.request.body; // an address names only what is filtered by
      [...body.keys()].forEach((name) => { if (body.get(name) === "") body.delete(name); });
      return;
    }
    asking = true;
    askedFor = root().getAttribute("hx-get");
    const digest = digests.get(context.sourceElement.id);
    if (digest) context.request.headers["X-Part"] = digest;
  });

  // In the side bar.
  function showCounts(text) {
    new URLSearchParams(text).forEach((count, noun) => {
      const shown = document.querySelector(`[data-count="${noun}"]`);
      if (shown) show(shown, count);
    });
  }

  document.addEventListener("htmx:after:request", (event) => {
    const response = event.detail.ctx.response;
    if (response && response.status < 400) showCounts(response.headers.get("X-Counts") || "");
    if (!response || !isLive(event)) return;
    const good = response.status < 400;
    errors = good ? 0 : errors + 1;
    if (response.status === 404) every = 0; // what was shown is gone for good
    if (!good) return;
    const notice = document.getElementById("notice");
    if (root().hasAttribute("data-reload")) location.reload();
    else if (notice && notice.hasAttribute("data-outage")) {
      const empty = document.createElement("div");
      empty.id = "notice";
      empty.setAttribute("role", "status");
      notice.replaceWith(empty);
    }
    const digest = response.headers.get("X-Part");
    if (digest) digests.set(root().id, digest);
  });

  document.addEventListener("htmx:error", () => { errors += 1; });

  // A list that somebody is reading keeps its rows; new ones wait until they are asked for.

  let asked = false;
  const rowsOf = (part) => [...part.querySelectorAll("tbody > tr[id]")].map((row) => row.id);

  const listOf = (live) => live.querySelector("tbody:has(> tr[id])");

  function reading(live) {
    const rows = listOf(live);
    return Boolean(rows) && (rows.matches(":hover") || rows.contains(document.activeElement)
      || rows.querySelector("[data-pick]:checked")
      || rows.getBoundingClientRect().top < 0);
  }

  function offer(text) {
    const button = document.querySelector("[data-live-new]");
    if (!button) return;
    show(button, text);
    button.hidden = !text;
  }

  document.addEventListener("htmx:before:swap", (event) => {
    const { response, text } = event.detail.ctx;
    const live = root();
    if (isLive(event) && live.getAttribute("hx-get") !== askedFor) {
      event.preventDefault(); // another filter was chosen meanwhile
      digests.delete(live.id);
      return;
    }
    if (isLive(event) && (!response || response.status !== 200)) return;
    if (!isLive(event) || asked || !reading(live)) {
      asked = false;
      offer("");
      return;
    }
    const shown = rowsOf(live);
    const waiting = rowsOf(new DOMParser().parseFromString(text, "text/html"));
    if (shown.join() === waiting.join()) {
      offer("");
      return;
    }
    event.preventDefault();
    digests.delete(live.id);
    const fresh = waiting.filter((id) => !shown.includes(id)).length;
    offer(fresh ? `${fresh} new: show` : "Changed: show");
  });

  document.addEventListener("htmx:finally:request", () => {
    asking = false;
    tick();
    plan();
  });

  document.addEventListener("htmx:after:swap", tick);

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else if (every) refresh();
  });

  function choose(seconds) {
    every = seconds;
    errors = 0;
    try { localStorage.setItem(EVERY, String(seconds)); } catch { /* private window */ }
    const select = document.querySelector("[data-live-every]");
    if (select) select.value = String(seconds);
    plan();
  }

  // --- Times: the server writes UTC, the reader sees the own zone, named at the foot ---

  const ZONE = "omnidash-zone"; // "UTC" if the reader chose it, remembered
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  let full = null;
  let hours = null;

  function chooseZone(name) {
    const timeZone = name || undefined;
    document.documentElement.dataset.zone = name;
    try { localStorage.setItem(ZONE, name); } catch { /* private window */ }
    full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", timeZone });
    hours = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone });
    document.dispatchEvent(new Event("omnidash:zone"));
  }

  function inUnits(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    for (const [size, unit, rest, restUnit] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"]]) {
      if (whole >= size) {
        const left = Math.floor((whole % size) / rest);
        return `${Math.floor(whole / size)} ${unit}${left ? ` ${left} ${restUnit}` : ""}`;
      }
    }
    return whole >= 60 ? `${Math.floor(whole / 60)} min` : `${whole} s`;
  }

  function clock(seconds) {
    if (seconds >= 86400) return inUnits(seconds);
    const whole = Math.floor(seconds);
    const pad = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(whole / 3600);
    return `${hours ? `${hours}:` : ""}${pad(Math.floor((whole % 3600) / 60))}:${pad(whole % 60)}`;
  }

  function show(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  const proposed = new WeakSet();

  // The reader's zone in place of the one that stands there by default, once; all others to choose from.
  function proposeZone(input) {
    if (proposed.has(input)) return;
    proposed.add(input);
    if (input.defaultValue === "UTC" && input.value === "UTC") input.value = own;
    const zones = Intl.supportedValuesOf?.("timeZone") ?? [own];
    input.list?.replaceChildren(...["UTC", ...zones].map((name) => new Option(name, name)));
  }

  function tick() {
    const now = Date.now();
    document.querySelectorAll("time[datetime]").forEach((element) => {
      const at = Date.parse(element.getAttribute("datetime"));
      if (Number.isNaN(at)) return;
      const passed = (now - at) / 1000;
      if (element.hasAttribute("data-moment")) show(element, full.format(at));
      else if (element.hasAttribute("data-clock")) show(element, hours.format(at));
      else if (element.hasAttribute("data-age")) {
        show(element, passed < -2 ? `${inUnits(-passed)} ahead` : `${inUnits(passed)} ago`);
      } else if (element.hasAttribute("data-left")) {
        const left = -passed;
        show(element, left <= 0 ? "expired" : clock(left));
        element.className = left <= 0 ? "left-over" : left < 300 ? "left-now" : left < 3600 ? "left-soon" : "left-later";
      }
      if (!element.hasAttribute("data-moment")) element.title = full.format(at);
    });
    const chosen = document.documentElement.dataset.zone;
    const foot = document.querySelector("footer [data-zone]");
    if (foot) show(foot, chosen || own);
    document.querySelectorAll("[data-zone-name]").forEach((element) => show(element, chosen || own));
    document.querySelectorAll("[data-zone-value]").forEach((input) => { input.value = chosen || own; });
    document.querySelectorAll("[data-zone-own]").forEach(proposeZone);
    const other = document.querySelector("[data-zone-switch]");
    if (other) {
      other.hidden = own === "UTC";
      show(other, chosen ? `Show ${own}` : "Show UTC");
    }
  }

  // --- Keyboard and buttons ---

  const pages = { o: "", a: "agents/", r: "results/", m: "metrics/", e: "errors/", s: "storage/", b: "backups/", c: "config/", l: "cleanup/", u: "../runs/" };
  let goes = false;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input, textarea, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (goes && event.key in pages) {
      const there = new URL(`/${document.body.dataset.store}/${pages[event.key]}`, location.href).href;
      // Only where the side bar leads to: of what one may not see, each try would be written down.
      if ([...document.querySelectorAll("#sidebar a")].some((link) => link.href === there)) location.assign(there);
    } else if (event.key === "/") {
      const filter = document.querySelector("[data-filter]");
      if (filter) { event.preventDefault(); filter.focus(); filter.select(); }
    } else if (event.key === "?") document.getElementById("keys").togglePopover();
    else if (event.key === "p") choose(every ? 0 : 2);
    goes = event.key === "g";
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-live-every]")) choose(Number(event.target.value));
  });

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-zone-switch]")) return;
    chooseZone(document.documentElement.dataset.zone ? "" : "UTC");
    tick();
  });

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-live-new]")) return;
    asked = true;
    // The button goes away, and the focus should not go with it.
    listOf(root())?.closest("[tabindex]")?.focus({ preventScroll: true });
    refresh();
  });

  // A click for a new tab is the browser's; htmx would swallow it.
  document.addEventListener("click", (event) => {
    const modified = event.ctrlKey || event.metaKey || event.shiftKey;
    if (modified && event.target.closest("a[hx-get]")) event.stopPropagation();
  }, true);

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here";
    }
    setTimeout(() => { button.textContent = said; }, 1500);
  });

  let zone = "";
  try { zone = localStorage.getItem(ZONE) || ""; } catch { /* private window */ }
  chooseZone(zone === "UTC" ? zone : "");
  let remembered = null;
  try { remembered = localStorage.getItem(EVERY); } catch { /* private window */ }
  choose(["0", "2", "5", "15", "60"].includes(remembered) ? Number(remembered) : 2);
  tick();
  setInterval(tick, 1000);
})();
