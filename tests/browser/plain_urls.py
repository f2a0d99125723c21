from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("favicon.ico", lambda _request: HttpResponse(status=204)),  # browsers ask for it
    path("", include("generation.urls")),
]
