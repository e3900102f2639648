"""What gunicorn serves."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

# Said here too, for who starts gunicorn without manage.py.
os.umask(0o077)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omnidash.settings")

application = get_wsgi_application()

# Needs the application's settings, so it comes last.
from omnidash.stores import warm_up  # noqa: E402

warm_up()
