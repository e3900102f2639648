// Before the first paint: the theme that was chosen here, or the system's.
"use strict";
(function () {
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try { return localStorage.getItem("omnidash-theme") || "auto"; } catch { return "auto"; }
  }

  function apply() {
    const choice = chosen();
    const dark = choice === "dark" || (choice === "auto" && system.matches);
    const root = document.documentElement;
    // The second is for the pages of Django's admin.
    root.dataset.bsTheme = root.dataset.theme = dark ? "dark" : "light";
    document.querySelectorAll("[data-theme-choice]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
    });
    document.dispatchEvent(new Event("omnidash:theme"));
  }

  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", apply);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-theme-choice]");
    if (!button) return;
    try { localStorage.setItem("omnidash-theme", button.dataset.themeChoice); } catch { /* private window */ }
    apply();
  });
})();
