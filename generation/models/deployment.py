"""What all processes of a deployment share."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Deployment(models.Model):
    """One row, made at the first start; it distinguishes this database from any other."""

    id = models.PositiveSmallIntegerField(primary_key=True)
    identity = models.UUIDField()

    def __str__(self) -> str:
        return str(self.identity)


class Maintenance(models.Model):
    """A periodic task that one process at a time does, for all processes of all hosts.

    Its lease is a row, because a lock of a database session would be lost behind PgBouncer.
    """

    task = models.CharField(max_length=32, primary_key=True)
    # A fencing token: who lost the lease to another can no longer end the task.
    holder = models.UUIDField()
    leased_until = models.DateTimeField()
    done_at = models.DateTimeField(null=True, help_text="When the task was last done to its end.")
    done_by = models.CharField(
        max_length=100, db_default="", help_text="The process that did it, and its host."
    )
    watermark = models.DateTimeField(
        null=True, help_text="Rows stored until then are in the rollups, if the task is theirs."
    )
    back_to = models.DateTimeField(
        null=True, help_text="How far back rows that were there before are in the rollups."
    )

    class Meta:
        # What the admin shows of it: `admin/storage.py`.
        verbose_name = verbose_name_plural = "storage"

    def __str__(self) -> str:
        return self.task


class Announcement(models.Model):
    """A log row that the receivers of `generation_stored` are yet to hear of."""

    id = models.UUIDField(primary_key=True)  # the log row's
    tries = models.SmallIntegerField(default=0, db_default=0)
    due_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.id)
