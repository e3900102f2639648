"""What is vendored is what its authors released, licensed, light, and asks nobody else."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = [ROOT / "static" / "vendor", ROOT / "tests" / "vendor"]
STYLES_AND_SCRIPTS = [
    path for path in sorted((ROOT / "static").rglob("*")) if path.suffix in {".css", ".js", ".svg"}
]
# Never fetched: names of XML namespaces, and what authors say of themselves in comments.
NAMESPACE = re.compile(r"https?://www\.w3\.org/(2000/svg|1999/(xhtml|xlink))")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def packages(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "manifest.json").read_text())["packages"]


@pytest.mark.parametrize("folder", FOLDERS, ids=["static", "tests"])
def test_every_vendored_file_is_in_the_manifest_with_its_checksum(folder: Path) -> None:
    said = {name: sum_ for package in packages(folder) for name, sum_ in package["files"].items()}
    there = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert said == there


@pytest.mark.parametrize("folder", FOLDERS, ids=["static", "tests"])
def test_every_package_has_a_version_and_its_licence_text(folder: Path) -> None:
    for package in packages(folder):
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        assert package["licence"] in {"MIT", "0BSD", "MPL-2.0"}
        assert package["licence_file"] in package["files"]


@pytest.mark.parametrize("path", STYLES_AND_SCRIPTS, ids=lambda path: path.name)
def test_no_file_asks_another_host(path: Path) -> None:
    text = NAMESPACE.sub("", COMMENT.sub("", path.read_text(encoding="utf-8")))
    assert re.findall(r"https?://[^\s\"')]+", text) == []
    assert re.findall(r"(?:@import|url\(|src=)\s*[\"']?//[^\s\"')]+", text) == []
    assert "sourceMappingURL" not in text


def test_no_template_asks_another_host() -> None:
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|link|img|iframe)[^>]*[\"'](?:https?:)?//", text) == [], path


def test_styles_and_scripts_are_light() -> None:
    names = ("tabler/tabler.min.css", "uplot/uPlot.iife.min.js", "uplot/uPlot.min.css")
    vendor = [FOLDERS[0] / name for name in (*names, "htmx/htmx.min.js")]
    assert sum(len(gzip.compress(path.read_bytes())) for path in vendor) < 125 * 1024


def test_every_icon_used_is_in_the_sprite() -> None:
    sprite = (FOLDERS[0] / "icons" / "sprite.svg").read_text()
    used = {
        name
        for path in (ROOT / "templates").rglob("*.html")
        for name in re.findall(r"sprite\.svg['\"]\s*%}#([a-z0-9-]+)", path.read_text())
    }
    assert used <= set(re.findall(r'<symbol id="([a-z0-9-]+)"', sprite))
