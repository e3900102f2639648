"""What can be asked of a page that is on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Response

from omnidash.text import ref
from tests.browser.browsers import is_from_htmx

AXE = (Path(__file__).parents[1] / "vendor" / "axe.min.js").read_text(encoding="utf-8")
# Records whose names are hard to address, the same in both fixtures but for the task.
AGENT = f"agents/{ref('chat.assistant', 'chat/assistant?v=2#beta')}/"
RESULTS = {"json": f"results/{ref('../../46')}/", "redis": f"results/{ref('../../1807')}/"}
PAGES = {
    "overview": "",
    "agents": "agents/",
    "one agent": AGENT,
    "results": "results/",
    "one result": "results/one",
    "metrics": "metrics/",
    "errors": "errors/",
    "storage": "storage/",
    "backups": "backups/",
    "config": "config/",
    "login": "login",
}


def address(store: str, name: str) -> str:
    path = PAGES[name]
    if name == "login":
        return "login/"
    return f"{store}/{RESULTS[store] if name == 'one result' else path}"


def violations(page: Page) -> list[str]:
    """What axe finds wrong by WCAG 2.1 A and AA, one line an element."""
    page.evaluate(AXE)
    found: list[dict[str, Any]] = page.evaluate(
        """async () => (await axe.run(document, {
          runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], resultTypes: ["violations"],
        })).violations"""
    )
    return [
        f"{violation['id']}: {node['html'][:200]} -- {node['failureSummary'][:300]}"
        for violation in found
        for node in violation["nodes"]
    ]


def too_wide(page: Page) -> list[str]:
    """Elements that make the document wider than the screen; empty if it is not."""
    found: list[str] = page.evaluate(
        """() => {
          const { scrollWidth, clientWidth } = document.documentElement;
          if (scrollWidth <= clientWidth) return [];
          return [...document.body.querySelectorAll("*")]
            .filter((element) => element.getBoundingClientRect().right > clientWidth + 1)
            .map((element) => element.outerHTML.slice(0, 150));
        }"""
    )
    return found


def next_refresh(page: Page, status: int | None = None, rounds: int = 8) -> Response:
    """The first live refresh from now on that is answered with this status, swapped in."""
    for _ in range(rounds):
        page.evaluate(
            """() => {
              window.refreshed = false;
              document.addEventListener(
                "htmx:finally:request", () => { window.refreshed = true; }, { once: true });
            }"""
        )
        with page.expect_response(lambda found: is_from_htmx(found.request)) as answer:
            # As when the reader comes back to this tab: at once, not after two seconds.
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        eventually(page, "window.refreshed")
        if status in (None, answer.value.status):
            return answer.value
    raise AssertionError(f"no refresh of {rounds} was answered with {status}")


def eventually(page: Page, condition: str) -> None:
    """Waits in the page until this is true. Playwright's own wait is forbidden by our policy, since
    it evaluates text there again and again."""
    met = page.evaluate(
        f"""async () => {{
          const end = performance.now() + 45000;
          while (!({condition})) {{
            if (performance.now() > end) return false;
            await new Promise((again) => setTimeout(again, 20));
          }}
          return true;
        }}"""
    )
    assert met, condition
