#!/usr/bin/env python3
"""The way in from the command line."""

from __future__ import annotations

import os
import sys


def main() -> None:
    # Everything that we write (database, secret key, backups) is for this user alone.
    os.umask(0o077)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omnidash.settings")
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        # A bad value in the environment is the operator's to mend: one line, no traceback.
        _ = settings.INSTALLED_APPS
    except ImproperlyConfigured as error:
        sys.exit(f"omnidash: {error}")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
