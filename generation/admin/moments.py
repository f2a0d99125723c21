"""A filter from one moment until another, in Django's own look; Unfold brings one."""

# Django passes its hooks more than each needs

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin.filters import FieldListFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.admin.views.main import ChangeList

SIDES = ("from", "to")


class RangeDateTimeFilter(FieldListFilter):
    """Its parameters are those of Unfold's, so that an address works in both looks."""

    template = "generation/moments.html"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # As text: a list of values, where Django would keep one.
        self.used_parameters = {
            name: value[-1] if isinstance(value, list) else value
            for name, value in self.used_parameters.items()
        }

    def expected_parameters(self) -> list[str | None]:
        return [f"{self.field_path}_{side}_{part}" for side in SIDES for part in (0, 1)]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Yields one form. What else the address says stays, as hidden fields."""
        names = self.expected_parameters()
        yield {
            "sides": [
                {
                    "title": side,
                    "day": f"{self.field_path}_{side}_0",
                    "day_value": self.used_parameters.get(f"{self.field_path}_{side}_0", ""),
                    "clock": f"{self.field_path}_{side}_1",
                    "clock_value": self.used_parameters.get(f"{self.field_path}_{side}_1", ""),
                }
                for side in SIDES
            ],
            "others": [
                (name, value)
                for name, values in changelist.filter_params.items()
                for value in values
                if name not in names
            ],
            "clear": changelist.get_query_string(remove=[str(name) for name in names]),
            "is_used": any(self.used_parameters.values()),
        }
