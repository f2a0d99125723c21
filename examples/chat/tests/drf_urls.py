"""For a project with Django REST framework: the view, with DRF's own logins."""

from django.urls import path
from rest_framework.authentication import BasicAuthentication, SessionAuthentication

from generation.mounted.drf import GenerateView

view = GenerateView.as_view(authentication_classes=[BasicAuthentication, SessionAuthentication])
urlpatterns = [path("api/generate", view)]
