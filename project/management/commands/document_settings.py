"""`make docs`: write docs/configuration.md."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from project import reference
from project.settings import BASE_DIR, env


class Command(BaseCommand):
    help = "Write docs/configuration.md from the settings."
    requires_system_checks = ()

    def handle(self, **_options: Any) -> None:
        page = BASE_DIR / "docs" / "configuration.md"
        page.write_text(reference.render(env.variables))
        self.stdout.write(f"{page} is up to date.")
