from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from omnidash import roles


def grant(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    roles.grant(apps)


class Migration(migrations.Migration):
    """What the roles may do with backups."""

    dependencies = [("omnidash", "0005_backups")]
    operations = [migrations.RunPython(grant, migrations.RunPython.noop)]
