"""`manage.py profile set|show|list`."""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from generation import conf
from generation.errors import ModelNotAllowed
from generation.llm.offer import Offer
from generation.management.users import find_user
from generation.models import LogContent, Profile
from generation.pipeline.prompts import template_fault
from generation.storable import is_storable

if TYPE_CHECKING:
    from argparse import ArgumentParser

HELP = """\
Set and show the users' profiles: the prompt that the LLM gets for a user, and who answers it.

  manage.py profile set 7 --template 'Translate into French: $input'
      The prompt of user 7, with the service's default provider and model. $input is replaced by
      the request's input, $name by its variable of that name, and $$ by a dollar sign. Without
      $input, the input is appended after a blank line.

  manage.py profile set alice --template-file letter.txt --system 'You answer letters.'
      A user by name, and a longer template from a file (- reads standard input).

  manage.py profile set alice --provider openai --model gpt-6-luna --max-tokens 500
      Only what is named changes. '' goes back to the service's default: --model ''

  manage.py profile set alice --log-content metadata
      The log keeps no texts of this user: neither prompts nor results.

  manage.py profile show alice
  manage.py profile list
"""
EXCERPT_CHARS = 60


class Command(BaseCommand):
    help = HELP

    def create_parser(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        change = actions.add_parser("set", help="Make a user's profile, or change it.")
        change.add_argument("user", help="By name or id.")
        template = change.add_mutually_exclusive_group()
        template.add_argument("--template", metavar="TEXT", help="The prompt, e.g. 'Say: $input'.")
        template.add_argument(
            "--template-file", metavar="PATH", help="A file with the prompt, in UTF-8; - is stdin."
        )
        system = change.add_mutually_exclusive_group()
        system.add_argument("--system", metavar="TEXT", help="The system prompt; '' for none.")
        system.add_argument("--system-file", metavar="PATH", help="A file with it; - is stdin.")
        change.add_argument("--provider", help="One that is offered; '' for the default.")
        change.add_argument("--model", help="One that is offered; '' for the provider's default.")
        change.add_argument(
            "--max-tokens", metavar="N", help="Limit on the answer's length; '' for the default."
        )
        change.add_argument(
            "--log-content",
            choices=["", *LogContent.values],
            help="What the log keeps of this user's prompts and results; '' for the service's.",
        )
        show = actions.add_parser("show", help="Show a user's profile.")
        show.add_argument("user", help="By name or id.")
        actions.add_parser("list", help="List all profiles, one a line.")

    def handle(self, **options: Any) -> None:
        self.offer = Offer(conf.load())
        {"set": self.set_profile, "show": self.show_profile, "list": self.list_profiles}[
            options["action"]
        ](options)

    def set_profile(self, options: dict[str, Any]) -> None:
        user = find_user(options["user"])
        found = Profile.objects.filter(pk=user.pk).first()
        profile = found or Profile(user_id=user.pk)
        values = {
            "prompt_template": _text(options, "template"),
            "system": _text(options, "system"),
            "provider": options["provider"],
            "model": options["model"],
            "max_tokens": options["max_tokens"],
            "log_content": options["log_content"],
        }
        given = {name: value for name, value in values.items() if value is not None}
        if not given:
            raise CommandError("Name what to set, e.g. --template 'Say: $input'.")
        if found is None and "prompt_template" not in given:
            raise CommandError(
                f"{user} has no profile yet: give its prompt with --template or --template-file."
            )
        for name, value in given.items():
            setattr(profile, name, (value or None) if name == "max_tokens" else value)
        self.check_values(profile)
        profile.save()
        done = "Changed" if found else "Made"
        self.stdout.write(f"{done} the profile of {user} (id {user.pk}): {self.target(profile)}.")

    def check_values(self, profile: Profile) -> None:
        """Raises `CommandError`."""
        if fault := template_fault(profile.prompt_template):
            raise CommandError(f"The template can't be used. {fault}")
        if not all(map(is_storable, (profile.prompt_template, profile.system))):
            raise CommandError("A text has characters that PostgreSQL can't store, e.g. NUL.")
        try:
            profile.clean_fields()
            self.offer.choose(profile.provider, profile.model)
        except ValidationError as error:
            faults = (
                f"{name}: {' '.join(sentences)}" for name, sentences in error.message_dict.items()
            )
            raise CommandError("; ".join(faults)) from None
        except ModelNotAllowed as error:
            raise CommandError(
                f"{error}. Choose one of these with --provider and --model ('' for the default),"
                " or offer it with LLM_ALLOWED."
            ) from None

    def show_profile(self, options: dict[str, Any]) -> None:
        user = find_user(options["user"])
        profile = Profile.objects.filter(pk=user.pk).first()
        if profile is None:
            raise CommandError(
                f"{user} has no profile. Make one: manage.py profile set {user.pk} --template TEXT"
            )
        self.stdout.write(f"User: {user} (id {user.pk})")
        self.stdout.write(f"Asks: {self.target(profile)}")
        self.stdout.write(f"Longest answer: {profile.max_tokens or 'the default'} tokens")
        kept = profile.get_log_content_display() if profile.log_content else "the service's choice"
        self.stdout.write(f"Kept in the log: {kept}")
        self.stdout.write(f"System prompt:\n{profile.system or '(none)'}\n")
        self.stdout.write(f"Prompt template:\n{profile.prompt_template}")

    def list_profiles(self, _options: dict[str, Any]) -> None:
        is_empty = True
        for profile in Profile.objects.order_by("pk").select_related("user").iterator():
            is_empty = False
            line = " ".join(profile.prompt_template.split())
            shown = line if len(line) <= EXCERPT_CHARS else f"{line[:EXCERPT_CHARS]}…"
            self.stdout.write(f"{profile.pk:6}  {profile.user}  {self.target(profile)}  {shown}")
        if is_empty:
            self.stdout.write("There are no profiles. Make one: manage.py profile set --help")

    def target(self, profile: Profile) -> str:
        """Returns who answers, in words."""
        try:
            chosen = self.offer.choose(profile.provider, profile.model)
        except ModelNotAllowed as error:
            return f"nobody, because {error}"
        return f"{chosen}" if profile.provider or profile.model else f"{chosen} (the default)"


def _text(options: dict[str, Any], name: str) -> str | None:
    """Returns the given text, or that of the given file without its last line's end."""
    path: str | None = options[f"{name}_file"]
    if path is None:
        text: str | None = options[name]
        return text
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return content.decode().removesuffix("\n")
    except OSError as error:
        raise CommandError(f"--{name}-file {path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"--{name}-file {path} is not in UTF-8.") from None
