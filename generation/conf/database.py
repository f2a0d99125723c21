"""The settings of the hot path's database and of its journal."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from generation.conf.base import Group
from generation.conf.fields import Boolean


class DatabaseSettings(Group):
    database: str = Field("default", description="The Django database that holds the tables.")
    db_pool_mode: Literal["direct", "pgbouncer-transaction"] = Field(
        "direct",
        description="Use `pgbouncer-transaction` if the database is reached through PgBouncer.",
    )
    db_pool_size: int = Field(
        10, ge=1, le=1000, description="Connections the hot path keeps open, per process."
    )
    db_max_overflow: int = Field(
        20, ge=0, le=1000, description="Extra connections for bursts, closed on return."
    )
    db_pool_timeout: float = Field(
        10, gt=0, le=300, description="Longest wait for a connection; then 503."
    )
    db_pool_recycle: int = Field(
        3600, ge=-1, description="Replace connections older than this; -1: never."
    )
    db_pool_pre_ping: Boolean = Field(
        default=True,
        description="Test a connection that was idle for a second before using it; never done "
        "through PgBouncer.",
    )
    db_echo: Boolean = Field(
        default=False,
        description="Log every SQL statement of the hot path, prompts and answers included.",
    )
    db_command_timeout: float = Field(
        10, gt=0, le=300, description="Longest time for one statement."
    )
    write_timeout: float = Field(
        2, gt=0, le=300, description="Longest wait for a commit; then the row goes to the journal."
    )
    journal_dir: str = Field(
        "var/journal",
        min_length=1,
        description="Folder for rows that the database has not taken yet; if it is relative, below"
        " BASE_DIR.",
    )
    journal_max_bytes: int = Field(
        67_108_864,
        ge=65_536,
        description="Disk space that each process reserves in that folder at start.",
    )
