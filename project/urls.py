"""/  /api/v1  /admin  /metrics  /livez  /readyz"""

from django.contrib import admin
from django.urls import include, path, re_path

from generation.api.health import not_found
from project import lockout, pages

urlpatterns = [
    path("", pages.start, name="start"),
    path("admin/login/", lockout.login),
    path("admin/", admin.site.urls),
    path("", include("generation.urls")),
    re_path(r"^api(/[\s\S]*)?$", not_found),  # other versions
]
