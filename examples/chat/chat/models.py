"""Conversations and their messages. Staccato's effects write the messages."""

from datetime import datetime
from uuid import UUID, uuid4

from django.conf import settings
from django.db import models
from django.utils import timezone

from people.models import User


class Conversation(models.Model):
    id: "models.UUIDField[UUID, UUID]" = models.UUIDField(primary_key=True, default=uuid4)
    owner: "models.ForeignKey[User, User]" = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="conversations"
    )
    title: "models.CharField[str, str]" = models.CharField(max_length=80, blank=True)
    updated_at: "models.DateTimeField[datetime, datetime]" = models.DateTimeField(
        default=timezone.now
    )

    class Meta:
        ordering = ("-updated_at",)

    def __str__(self) -> str:
        return self.title or "New conversation"


class Message(models.Model):
    id: "models.UUIDField[UUID, UUID]" = models.UUIDField(primary_key=True, default=uuid4)
    conversation: "models.ForeignKey[Conversation, Conversation]" = models.ForeignKey(
        Conversation, models.CASCADE, related_name="messages"
    )
    role: "models.CharField[str, str]" = models.CharField(max_length=16)
    text: "models.TextField[str, str]" = models.TextField(blank=True)
    status: "models.CharField[str, str]" = models.CharField(max_length=16, default="succeeded")
    generation_id: "models.UUIDField[UUID | None, UUID | None]" = models.UUIDField(null=True)
    created_at: "models.DateTimeField[datetime, datetime]" = models.DateTimeField(
        default=timezone.now
    )

    class Meta:
        ordering = ("created_at",)

    def __str__(self) -> str:
        return f"{self.role}: {self.text[:40]}"
