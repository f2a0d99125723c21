"""What the log keeps of a generation's texts."""

from __future__ import annotations

from django.db import models


class LogContent(models.TextChoices):
    """What the log keeps of a generation's texts, from all to nothing."""

    FULL = "full", "full: prompts and results as they are"
    REDACTED = "redacted", "redacted: without secrets and personal data that can be recognised"
    HASHED = "hashed", "hashed: keyed hashes, which show only whether two texts are the same"
    METADATA = "metadata", "metadata: no texts; tokens, cost, times and errors' kinds"
