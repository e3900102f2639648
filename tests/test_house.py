"""The house keeps its order: imports run one way, and no room grows too big."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    path
    for folder in ("omnidash", "storage", "bench", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "data" not in path.parts  # tools that came with the fixtures
]
PROJECT = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == "omnidash"]
STORAGE = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == "storage"]
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
DRIVERS = {"redis", "psycopg", "pymongo", "boto3"}
# Each may import those below it, never one above.
FLOORS = [{"urls"}, {"views", "management"}, {"runs"}, {"actions"}, {"health", "history"}]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def floor(room: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


@pytest.mark.parametrize("path", PROJECT, ids=name_of)
def test_no_driver_outside_storage(path: Path) -> None:
    assert {name.partition(".")[0] for name in imports(path)} & DRIVERS == set()


@pytest.mark.parametrize("path", STORAGE, ids=name_of)
def test_storage_knows_neither_the_dashboard_nor_django(path: Path) -> None:
    assert {name.partition(".")[0] for name in imports(path)} & {"omnidash", "django"} == set()


@pytest.mark.parametrize("path", PROJECT, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    own = floor(path.relative_to(ROOT / "omnidash").parts[0].removesuffix(".py"))
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("omnidash.")}
    if own is not None:
        assert [room for room in rooms if (other := floor(room)) is not None and other < own] == []


@pytest.mark.parametrize("path", PROJECT, ids=name_of)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name not in {"settings.py", "wsgi.py"}:
        assert re.findall(r"\b(?:os\.environ|getenv)\b", text) == []


@pytest.mark.parametrize("path", PROJECT, ids=name_of)
def test_only_htmx_py_reads_request_htmx(path: Path) -> None:
    if path.name != "htmx.py":
        assert re.findall(r"\.htmx\.|HX-Request['\"]", path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # A suite of tests is a list, which may be long; what each of them does may not.
    assert text.count("\n") < 400 or "tests" in path.parts
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 < 50, node.name


@pytest.mark.parametrize("path", TEMPLATES, ids=name_of)
def test_templates_stay_small_and_escape_everything(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 150
    assert re.findall(r"\|\s*safe\b|\|\s*safeseq\b|autoescape\s+off", text) == []
    # The policy forbids these; a browser would only complain.
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|hx-on|javascript:", text) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)", text) == []
    assert re.findall(r"\s[\w:-]+=\{\{", text) == [], "quote attributes"


@pytest.mark.parametrize("path", [*PROJECT, *STORAGE], ids=name_of)
def test_nothing_is_marked_safe_or_unpickled(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "mark_safe" not in text
    assert {name.partition(".")[0] for name in imports(path)} & {"pickle", "yaml"} == set()
    assert {name.partition(".")[0] for name in imports(path)} & {"tarfile", "zipfile"} == set()
