"""Asks the LLM from the command line."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from generation import generate_sync
from people.models import User


class Command(BaseCommand):
    help = "Ask the LLM on behalf of a user, and print the answer."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("prompt")

    def handle(self, *_args: Any, **options: Any) -> None:
        user = User.objects.get(username=options["username"])
        answer = generate_sync(user, prompt=options["prompt"])
        self.stdout.write(answer.result)
