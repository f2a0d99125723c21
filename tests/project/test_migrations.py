"""The migrations, with whichever Django runs this."""

from __future__ import annotations

import io

from django.core.management import call_command


def test_they_are_all_that_the_models_need(committed):
    needed = io.StringIO()
    call_command("makemigrations", dry_run=True, stdout=needed)
    assert needed.getvalue().strip() == "No changes detected", needed.getvalue()
