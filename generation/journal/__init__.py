r"""Rows that were paid for and that PostgreSQL has not stored yet, on disk.

    <folder>/<database>.<random>.journal   one per process, which holds an exclusive lock on it
    <folder>/<database>.refused            dead letters: rows that PostgreSQL refuses

A journal is lines of text, then NUL bytes that keep its space: `tr -d '\0' < file`. Each line is
eight hex digits of CRC-32, a space, and one JSON object; the first one says which database the
rest is for, the others have a row each: `{"v": 2, "row": {…}, "claim": {…} or null}`, where the
claim is on the idempotency key that the row completes. `cut -c10- | jq` reads it.
"""
