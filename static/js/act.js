// Selecting records, and the one dialog that shows what would happen before it does. Without this
// script the same forms and links lead to whole pages.
"use strict";
(function () {
  // --- Selection: kept by record, never by place, so no refresh can move it to another row ---

  const picked = new Set();
  let gone = 0; // selected records that have left the list since the last choice
  const picks = () => [...document.querySelectorAll("[data-pick]")];

  function showPicked() {
    const all = picks();
    all.forEach((pick) => { pick.checked = picked.has(pick.value); });
    const head = document.querySelector("[data-pick-all]");
    if (head) {
      head.checked = all.length > 0 && all.every((pick) => pick.checked);
      head.indeterminate = !head.checked && picked.size > 0;
    }
    const word = document.querySelector("[data-picked]");
    const text = `${picked.size} selected${gone ? `, ${gone} no longer listed` : ""}`;
    if (word && word.textContent !== text) word.textContent = text;
  }

  function choose(values, on) {
    gone = 0;
    values.forEach((value) => (on ? picked.add(value) : picked.delete(value)));
    showPicked();
  }

  function forgetUnlisted() {
    const listed = new Set(picks().map((pick) => pick.value));
    picked.forEach((value) => { if (!listed.has(value) && picked.delete(value)) gone += 1; });
    if (!picked.size) gone = 0;
    showPicked();
  }

  document.addEventListener("change", (event) => {
    const { target } = event;
    if (target.matches("[data-pick]")) choose([target.value], target.checked);
    else if (target.matches("[data-pick-all]")) choose(picks().map((pick) => pick.value), target.checked);
  });

  document.addEventListener("click", (event) => {
    const clear = event.target.closest("[data-pick-none]");
    if (!clear) return;
    choose([...picked], false);
    // The button goes away, and the focus should not go with it.
    clear.closest(".card").querySelector(".table-scroll").focus({ preventScroll: true });
  });

  // Enter would press the first button of the form, which is not what was meant.
  document.addEventListener("keydown", (event) => {
    const meant = event.target.closest(".menu-until, .confirm-typed");
    if (event.key !== "Enter" || !event.target.matches("[data-pick], .menu-until input, .confirm-typed input")) return;
    event.preventDefault();
    (meant?.querySelector("button") || meant?.parentElement.querySelector("button"))?.click();
  });

  // --- A choice that was not compared yet cannot be confirmed ---

  const differs = (one) => one.matches("select")
    ? [...one.options].some((option) => option.selected !== option.defaultSelected)
    : one.checked !== one.defaultChecked;

  document.addEventListener("change", (event) => {
    const choice = event.target.closest("[data-compared]");
    if (!choice) return;
    const anew = [...choice.querySelectorAll("input, select")].some(differs);
    const button = choice.closest("form").querySelector("footer button");
    button.disabled = anew || "off" in button.dataset;
    choice.querySelector("[data-chosen-anew]").textContent = anew ? "Chosen, and not compared yet." : "";
  });

  // --- Menus: a click beside one, or Escape, closes it ---

  const menus = () => [...document.querySelectorAll("details.menu[open]")];

  document.addEventListener("click", (event) => {
    menus().forEach((menu) => { menu.open = menu.contains(event.target); });
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menus().forEach((menu) => {
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  });

  // --- The dialog ---

  // Looked up each time: htmx replaces the whole page on the way back through the history.
  const dialog = () => document.getElementById("dialog");
  const body = () => document.getElementById("dialog-body");
  const FIRST = "input:not([type=hidden], [type=checkbox]), textarea, [data-dialog-close]";
  let opener = null;
  let current = null; // htmx's context of the request whose answer is waited for

  function fill(name) {
    body().replaceChildren(document.getElementById(name).content.cloneNode(true));
  }

  function ask(event, source, method, address) {
    event.preventDefault();
    const from = event.submitter || source;
    opener = from.closest("details.menu")?.querySelector("summary") || from;
    menus().forEach((menu) => { menu.open = false; });
    fill("dialog-waits");
    if (!dialog().open) dialog().showModal();
    htmx.ajax(method, address, { source, event, target: body(), swap: "innerHTML" });
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-dialog]");
    const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey; // a click for a new tab
    if (link && !elsewhere) ask(event, link, "GET", link.getAttribute("href"));
  });

  document.addEventListener("submit", (event) => {
    const { submitter, target } = event;
    if (!submitter?.matches("[data-dialog]")) return;
    const address = submitter.getAttribute("formaction") || target.getAttribute("action");
    ask(event, target, target.method, address);
  });

  function fail(title, why) {
    fill("dialog-fails");
    body().querySelector("strong").textContent = title;
    body().querySelector(".notice-cause").textContent = why;
    body().querySelector("[data-dialog-close]").focus();
  }

  // A whole page, or what is meant for the notice above one, is not for the dialog.
  function failed(context) {
    const said = new DOMParser().parseFromString(context.text, "text/html");
    const words = (selector) => said.querySelector(selector)?.textContent.trim().slice(0, 500);
    fail(words("#notice strong, h1") || "Not possible now", words(".notice-cause, h1 ~ p") || "");
  }

  const isOurs = (context) => context
    && (context.target === body() || dialog().contains(context.sourceElement));

  document.addEventListener("htmx:before:request", (event) => {
    const context = event.detail.ctx;
    if (context.target === body()) current = context;
    // A second click must not ask a second time.
    context.sourceElement.closest(".confirm")?.querySelectorAll("button:enabled").forEach((button) => {
      button.disabled = true;
      button.dataset.sent = "";
    });
  });

  document.addEventListener("htmx:after:request", (event) => {
    const context = event.detail.ctx;
    if (!isOurs(context) || context.hx.redirect) return;
    if (context.target === body() && context !== current) event.preventDefault(); // closed meanwhile
    else if (context.hx.retarget || /^\s*<!doctype/i.test(context.text)) {
      event.preventDefault();
      failed(context);
    }
  });

  document.addEventListener("htmx:error", (event) => {
    const context = event.detail.ctx;
    if (!isOurs(context) || !dialog().open) return;
    fail("No answer came.", "Nothing is changed before it is confirmed; what was confirmed is listed under Runs.");
  });

  function canAskAgain() {
    document.querySelectorAll("[data-sent]").forEach((button) => {
      button.disabled = false;
      delete button.dataset.sent;
    });
  }

  document.addEventListener("htmx:finally:request", (event) => {
    if (!event.detail.ctx.hx?.redirect) canAskAgain();
  });

  document.addEventListener("htmx:after:swap", () => {
    forgetUnlisted();
    if (dialog().open && !body().querySelector(":focus")) body().querySelector(FIRST)?.focus();
  });

  document.addEventListener("close", (event) => {
    if (event.target !== dialog()) return;
    current?.request.abort();
    current = null;
    body().replaceChildren();
    if (opener?.isConnected) opener.focus();
  }, true); // it does not bubble

  // What somebody has written is not thrown away by a click beside it.
  const isWritten = () => [...body().querySelectorAll("textarea")]
    .some((one) => one.value !== one.defaultValue);

  let beside = false; // a drag that ends beside the dialog is no click there
  document.addEventListener("pointerdown", (event) => { beside = event.target === dialog(); });

  document.addEventListener("click", (event) => {
    if (!dialog().contains(event.target)) return;
    const close = event.target.closest("[data-dialog-close]");
    if (close) event.preventDefault();
    if (close || (beside && event.target === dialog() && !isWritten())) dialog().close();
  });

  window.addEventListener("pageshow", (event) => {
    if (event.persisted) {
      canAskAgain();
      dialog().close();
    }
    picks().forEach((pick) => { if (pick.checked) picked.add(pick.value); });
    showPicked();
  });
})();
