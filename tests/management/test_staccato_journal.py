"""`manage.py staccato_journal adopt`; tests/durability has what it does to rows."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command


@pytest.mark.parametrize("content", [b"", b"text of mine\n", b'{"id": 1}\n', b"\x80" * 5000])
def test_a_file_that_is_no_journal_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "mistyped"
    path.write_bytes(content)
    with pytest.raises(CommandError, match="is not a journal"):
        call_command("staccato_journal", "adopt", str(path))
    assert path.read_bytes() == content


def test_a_folder_is_no_journal(tmp_path):
    with pytest.raises(CommandError, match="can't be read: Is a directory"):
        call_command("staccato_journal", "adopt", str(tmp_path))
