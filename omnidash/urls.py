"""The site map."""

from __future__ import annotations

from django.urls import URLPattern, include, path

from omnidash.admin import site
from omnidash.views import (
    actions,
    agents,
    backups,
    cleanup,
    config,
    door,
    errors,
    metrics,
    overview,
    results,
    runs,
    schedules,
    storage,
)


def action(route: str, name: str) -> URLPattern:
    """The address where an action is asked for and confirmed."""
    return path(route, actions.act, {"action": name}, name=name)


# Actions stand before the pages of one record, whose addresses could be like theirs.
action_urlpatterns = [
    action("agents/delete", "delete-agents"),
    action("agents/delete-topic", "delete-topic"),
    action("results/delete", "delete-results"),
    action("results/delete-matching", "delete-matching-results"),
    action("results/expiry", "extend-results"),
    action("config/delete", "delete-config"),
    action("cleanup/run", "clean-up"),
    action("clear/<slug:what>", "clear"),
    action("put-back", "put-back"),
    action("backups/create", "back-up"),
    action("backups/verify", "verify-backup"),
    action("backups/restore", "restore"),
    action("backups/copy", "copy-store"),
    action("backups/delete", "delete-backup"),
    action("backups/save", "save-rdb"),
    path("again", actions.again, name="again"),
]

# Pages of one store; the lead part of their address is the store's name.
store_urlpatterns = [
    *action_urlpatterns,
    path("", overview.overview, name="overview"),
    path("agents/", agents.agents, name="agents"),
    path("agents/<str:ref>/", agents.agent, name="agents-one"),
    path("results/", results.results, name="results"),
    path("results/<str:ref>/", results.result, name="results-one"),
    path("results/<str:ref>/download", results.download, name="results-download"),
    path("metrics/", metrics.metrics, name="metrics"),
    path("metrics/points", metrics.points, name="metrics-points"),
    path("metrics/numbers", metrics.numbers, name="metrics-numbers"),
    path("errors/", errors.errors, name="errors"),
    path("storage/", storage.storage, name="storage"),
    path("backups/", backups.backups, name="backups"),
    path("backups/upload", backups.upload, name="backups-upload"),
    path("backups/<str:ref>/", backups.backup, name="backups-one"),
    path("backups/<str:ref>/download", backups.download, name="backups-download"),
    path("backups/<str:ref>/files/<int:number>", backups.file, name="backups-file"),
    path("config/", config.config, name="config"),
    path("config/edit", config.edit, name="set-config"),
    path("cleanup/", cleanup.cleanup, name="cleanup"),
    path("cleanup/schedules", schedules.save, name="schedules-save"),
    path("cleanup/schedules/delete", schedules.delete, name="schedules-delete"),
]

urlpatterns = [
    path("", door.home, name="home"),
    path("login/", door.Login.as_view(), name="login"),
    path("logout/", door.logout, name="logout"),
    path("setup/<str:token>/", door.setup, name="setup"),
    path("password/", door.ChangePassword.as_view(), name="password"),
    path("password/changed/", door.password_changed, name="password-changed"),
    path("confirm-password/", door.ConfirmPassword.as_view(), name="confirm-password"),
    path("admin/", site.urls),
    path("healthz", door.healthz, name="healthz"),
    path("readyz", door.readyz, name="readyz"),
    path("runs/", runs.runs, name="runs"),
    path("runs/<int:number>/", runs.run, name="runs-one"),
    path("runs/<int:number>/stop", runs.stop, name="runs-stop"),
    path("<slug:store>/", include(store_urlpatterns)),
]

handler400 = door.bad_request
handler403 = door.forbidden
handler404 = door.not_found
handler500 = door.server_error
