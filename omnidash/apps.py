from __future__ import annotations

from django.apps import AppConfig


class OmniDashConfig(AppConfig):
    name = "omnidash"
    verbose_name = "OmniDash"
    default_auto_field = "django.db.models.BigAutoField"
