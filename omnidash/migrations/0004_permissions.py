from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from omnidash import roles


def grant(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    roles.grant(apps)


class Migration(migrations.Migration):
    """What the roles may do. Taking it back would also take what an administrator gave since."""

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("omnidash", "0003_runs"),
    ]
    operations = [migrations.RunPython(grant, migrations.RunPython.noop)]
