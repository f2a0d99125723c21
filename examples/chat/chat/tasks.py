"""Work of Celery's: a worker's process opens Staccato at its first use."""

from celery import shared_task

from generation import generate_sync
from people.models import User


@shared_task
def ask_later(username: str, prompt: str) -> str:
    user = User.objects.get(username=username)
    return str(generate_sync(user, prompt=prompt).id)
