"""Where Staccato finds what it needs of a user: in this project's own table."""

from collections.abc import Sequence

from generation import PromptRequest, PromptSource, PromptTemplate
from people.models import User


class Personas(PromptSource):
    async def read(self, requests: Sequence[PromptRequest]) -> Sequence[PromptTemplate | None]:
        asked = {request.user_id for request in requests}
        users = User.objects.filter(pk__in=asked, is_active=True)
        personas = {user.pk: user.persona async for user in users}
        return [
            PromptTemplate(system=personas[each.user_id]) if each.user_id in personas else None
            for each in requests
        ]
