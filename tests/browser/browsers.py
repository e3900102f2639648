"""A Chromium for the tests and the pictures, and what goes wrong in its pages."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_PATIENCE = 45_000  # milliseconds: on a busy machine each step may take many times as long
expect.set_options(timeout=_PATIENCE)
HEIGHTS = {1440: 900, 390: 844}
# A page only says on its console what the policy forbade if somebody listens.
_TELL_OF_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`forbidden: ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`);
});
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("chromium is missing: make test installs it, or apt-get install it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def context_of(
    browser: Browser, session: list[Any], theme: str = "light", width: int = 1440, **options: Any
) -> BrowserContext:
    """A fresh profile: the system's theme, a screen of this width, and these cookies."""
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHTS[width]},
        color_scheme=theme,  # type: ignore[arg-type]
        has_touch=width < 600,
        locale="en-GB",
        timezone_id="Europe/Berlin",
        **options,
    )
    context.set_default_timeout(_PATIENCE)
    if session:
        context.add_cookies(session)
    return context


@dataclass
class Watch:
    """Everything that a page complains of, and the live refreshes that it sends."""

    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    refreshes: list[Request] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        context.add_init_script(_TELL_OF_VIOLATIONS)
        context.on("page", self._listen)

    def expect(self, pattern: str) -> None:
        """This complaint is what the test is about."""
        self.expected.append(pattern)

    def unexpected(self) -> list[str]:
        return [
            complaint
            for complaint in self.complaints
            if not any(re.search(pattern, complaint) for pattern in self.expected)
        ]

    def _listen(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("requestfailed", self._failed)
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            where = message.location.get("url", "")
            self.complaints.append(f"console {message.type}: {message.text} ({where})")

    def _failed(self, request: Request) -> None:
        # Who leaves a page, or takes a download instead of one, ends what was under way.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"failed: {request.url} {request.failure}")

    def _request(self, request: Request) -> None:
        if is_from_htmx(request):
            self.refreshes.append(request)

    def _response(self, response: Response) -> None:
        if is_from_htmx(response.request):
            self.answers.append(response)
        if response.status >= 400:
            self.complaints.append(f"answer: {response.status} {response.url}")


def is_from_htmx(request: Request) -> bool:
    return "hx-request" in request.headers
