from django.contrib import admin
from django.urls import include, path

from chat import views
from chat.api import api

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/", include("django.contrib.auth.urls")),
    path("api/v1/", api.urls),
    path("", views.home, name="home"),
    path("chat/<uuid:conversation_id>", views.show, name="conversation"),
    path("chat/<uuid:conversation_id>/ask", views.ask, name="ask"),
]
