"""The site map."""

from __future__ import annotations

from django.urls import include, path

from omnidash.views import agents, config, door, errors, metrics, overview, results, storage

# Pages of one store; the lead part of their address is the store's name.
store_urlpatterns = [
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
    path("config/", config.config, name="config"),
]

urlpatterns = [
    path("", door.home, name="home"),
    path("login/", door.Login.as_view(), name="login"),
    path("logout/", door.logout, name="logout"),
    path("setup/<str:token>/", door.setup, name="setup"),
    path("healthz", door.healthz, name="healthz"),
    path("readyz", door.readyz, name="readyz"),
    path("<slug:store>/", include(store_urlpatterns)),
]

handler400 = door.bad_request
handler403 = door.forbidden
handler404 = door.not_found
handler500 = door.server_error
