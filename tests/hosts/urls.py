"""A host's own pages, some of them where ours are, and ours."""

from django.contrib import admin
from django.http import HttpResponse, JsonResponse
from django.urls import include, path


def upload(request):
    return JsonResponse({"bytes": len(request.body), "query": len(request.META["QUERY_STRING"])})


def theirs(_request, **_named):
    return HttpResponse("theirs")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("upload", upload),
    path("metrics", theirs),
    path("", include("generation.urls")),
    path("api/v1/<path:rest>", theirs),
    path("v1/things", theirs),
]
