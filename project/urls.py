"""/  /api/v1  /admin  /metrics  /livez  /readyz"""

from django.contrib import admin
from django.urls import include, path, re_path

from generation.api.health import not_found
from generation.api.openai.routes import not_found as v1_not_found
from project import lockout, pages

urlpatterns = [
    path("", pages.start, name="start"),
    path("admin/login/", lockout.login),
    path("admin/", admin.site.urls),
    # A problem in place of a page: the rest of the API's addresses, in the shape of each dialect.
    re_path(r"^(?:u/[^/]*/)?v1/$", v1_not_found),  # where ninja has a page that says nothing
    path("", include("generation.urls")),
    re_path(r"^(api|livez|readyz|metrics)(/[\s\S]*)?$", not_found, name="api-not-found"),
    re_path(r"^(?:u/[^/]*/)?v1(/[\s\S]*)?$", v1_not_found, name="v1-not-found"),
]
