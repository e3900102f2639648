"""Pictures of each page in both themes and at both widths, of OmniDaemon's own data in Redis, and
for the README of the sample, which has an hour behind it:
`python -m tests.browser.pictures FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.browsers import HEIGHTS, Watch, chromium, context_of
from tests.browser.looks import PAGES, address
from tests.browser.served import served, served_fixtures

STORE = "redis"
README = (("overview", "light"), ("metrics", "dark"))
# The clock has read what the simulator wrote, and it is drawn.
_HAS_HISTORY = """() => document.querySelector("[data-kind=tasks] canvas")
  && !document.querySelector("main").innerText.includes("read yet")"""


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    watch = Watch()
    with served_fixtures(only=STORE) as application, chromium() as browser:
        for theme in ("light", "dark"):
            for width in HEIGHTS:
                context = context_of(browser, application.session, theme, width)
                watch.over(context)
                page = context.new_page()
                for name in PAGES:
                    if name == "login":
                        page.goto("about:blank")
                        context.clear_cookies()
                    page.goto(application(address(STORE, name)), wait_until="networkidle")
                    file = folder / f"{name.replace(' ', '-')}-{theme}-{width}.png"
                    page.screenshot(path=file, animations="disabled")
                    print(file)
                context.close()
    with served(OMNIDASH_SAMPLE="on") as application, chromium() as browser:
        for name, theme in README:
            context = context_of(browser, application.session, theme, 1440)
            watch.over(context)
            page = context.new_page()
            page.goto(application(address("default", name)))
            page.wait_for_function(_HAS_HISTORY)
            page.screenshot(path=folder / f"sample-{name}-{theme}.png", animations="disabled")
            context.close()
    for complaint in watch.complaints:
        print(complaint, file=sys.stderr)
    return 1 if watch.complaints else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
