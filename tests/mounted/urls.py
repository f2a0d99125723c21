"""A project's own API, in which our router is mounted twice: behind sessions, and behind tokens."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.urls import path
from ninja import NinjaAPI
from ninja.security import HttpBearer, django_auth

from generation.mounted.ninja import make_router


class Token(HttpBearer):
    async def authenticate(self, request, token):
        return await get_user_model().objects.filter(username=token).afirst()


api = NinjaAPI(title="Theirs", urls_namespace="theirs")
api.add_router("session/", make_router(auth=django_auth))
api.add_router("token/", make_router(auth=Token()))
api.add_router("nobody/", make_router())
urlpatterns = [path("theirs/", api.urls)]
