"""A data folder after its first start, copied: to migrate and to hash takes seconds each time."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FIRST_START = """
import django
django.setup()
from omnidash.management.commands import serve
serve.migrate_if_needed()
serve.collect_static_if_changed()
"""


@cache
def _folder() -> Path:
    """One for each process of tests."""
    folder = Path(tempfile.mkdtemp(prefix="omnidash-prepared-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMNIDASH_DATA_DIR": str(folder),
        "OMNIDASH_STORES": f"default=json://{folder}/store",
        "DJANGO_SETTINGS_MODULE": "omnidash.settings",
    }
    subprocess.run([sys.executable, "-c", _FIRST_START], env=env, cwd=folder, check=True)
    return folder


def prepare(data: Path, *, database: bool = True) -> None:
    """Make a data folder in which the static files lie ready, and a migrated database."""
    left_out = None if database else shutil.ignore_patterns("*.sqlite3*")
    shutil.copytree(_folder(), data, ignore=left_out, dirs_exist_ok=True)
