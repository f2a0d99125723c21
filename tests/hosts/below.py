"""The same host with our pages below a prefix."""

from django.urls import include, path

urlpatterns = [path("their/llm/", include("generation.urls"))]
