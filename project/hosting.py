"""Parameters that hosting pages put into a DATABASE_URL for other drivers."""

from __future__ import annotations

import re

_NAME = re.compile(r'(?:invalid URI query parameter|invalid connection option):? "(\w+)"')
_INSTEAD = {
    "pgbouncer": "set DB_POOL_MODE=pgbouncer-transaction",
    "connection_limit": "set DB_POOL_SIZE",
    "pool_timeout": "set DB_POOL_TIMEOUT",
    "statement_cache_size": "set DB_POOL_MODE=pgbouncer-transaction",
    "prepared_statements": "set DB_POOL_MODE=pgbouncer-transaction",
    "schema": "use options=-csearch_path%3Dname",
    "currentSchema": "use options=-csearch_path%3Dname",
    "search_path": "use options=-csearch_path%3Dname",
    "sslaccept": "use sslmode=require or sslmode=verify-full",
    "ssl": "use sslmode=require",
    "sslidentity": "use sslcert and sslkey",
}


def advice(url: str, complaint: str) -> str:
    """Returns what to do about libpq's complaint. Quotes the name of a parameter and nothing else,
    because libpq's sentence may have the password."""
    if "@" in url.partition("?")[2]:  # then the "parameter" may be a part of the password
        return "write ?, / and @ in the user or password as %3F, %2F and %40"
    if found := _NAME.search(complaint):
        name = found[1]
        return f"PostgreSQL knows no parameter {name}; {_INSTEAD.get(name, 'leave it out')}"
    if "percent-encoded" in complaint:
        return "write % in the user or password as %25"
    return "use postgresql://user:password@host:5432/name"
