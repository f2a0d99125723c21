r"""Rows that were paid for and that the database has not taken yet, on disk.

    <folder>/<database>.<random>.journal   one per process, which holds an exclusive lock on it
    <folder>/<database>.refused            rows that PostgreSQL will not take, for the operator

A journal is lines of text, then NUL bytes that keep its space: `tr -d '\0' < file`. Each line is
eight hex digits of CRC-32, a space, and one JSON object; the first one says which database the
rest is for. `cut -c10- | jq` reads it.
"""
