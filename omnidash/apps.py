from __future__ import annotations

from django.apps import AppConfig


class OmniDashConfig(AppConfig):
    name = "omnidash"
    verbose_name = "OmniDash"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # They listen to logins.
        from omnidash import audit, sudo  # noqa: F401
