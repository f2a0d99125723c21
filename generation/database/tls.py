"""libpq's rules for TLS, as contexts of Python's: which files count, and what they ask for.

Two rules surprise: a root certificate that exists is checked in every mode, and only the modes
verify-ca and verify-full miss one that doesn't. Python's default context is stricter than libpq
since 3.13 (VERIFY_X509_STRICT) and refuses private authorities that libpq accepts; a plain
context is not.
"""

from __future__ import annotations

import contextlib
import ssl
import stat
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generation.database.dsn import Target

_FILES = {
    "sslrootcert": "root.crt",
    "sslcrl": "root.crl",
    "sslcert": "postgresql.crt",
    "sslkey": "postgresql.key",
}
_OTHERS = (
    *("sslmode", "sslpassword", "sslcertmode", "sslcrldir"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
)
_NOT_THERE = (FileNotFoundError, NotADirectoryError)


class _Context(ssl.SSLContext):
    """Checks the certificate for the host's name, whichever of its addresses is connected to."""

    host: str

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **{**kwargs, "server_hostname": self.host or None})


def context(target: Target, host: str) -> ssl.SSLContext:
    """Returns the context for a host, made again once a file has changed.

    Raises `OSError` for files that libpq refuses.
    """
    files = {name: target[name] or _in_home(default) for name, default in _FILES.items()}
    others = {name: target[name] for name in _OTHERS}
    stamps = tuple(_stamp(path) for path in files.values())
    return _make(host, tuple(files.items()), tuple(others.items()), stamps)


def _in_home(name: str) -> str:
    with contextlib.suppress(RuntimeError):  # there is no home
        return str(Path.home() / ".postgresql" / name)
    return ""


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


@lru_cache(maxsize=32)
def _make(
    host: str,
    files: tuple[tuple[str, str], ...],
    others: tuple[tuple[str, str], ...],
    _stamps: tuple[tuple[int, int] | None, ...],
) -> ssl.SSLContext:
    options = dict(files + others)
    mode = options["sslmode"]
    made = _Context(ssl.PROTOCOL_TLS_CLIENT)
    made.host = host
    made.check_hostname = False  # so that the next line is allowed
    made.verify_mode = ssl.CERT_NONE
    _trust(made, options)
    if mode == "verify-full":
        if not host:
            raise OSError("sslmode=verify-full needs a host's name")
        made.check_hostname = True
    _identify(made, options)
    made.minimum_version = _version(options["ssl_min_protocol_version"] or "TLSv1.2")
    if options["ssl_max_protocol_version"]:
        made.maximum_version = _version(options["ssl_max_protocol_version"])
    made.set_alpn_protocols(["postgresql"])
    return made


def _version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]


def _trust(made: ssl.SSLContext, options: dict[str, str]) -> None:
    """Load the root certificates and the lists of revoked ones."""
    root = options["sslrootcert"]
    if root == "system":
        made.set_default_verify_paths()
    elif root and Path(root).exists():
        made.load_verify_locations(cafile=root)
    elif options["sslmode"] in {"verify-ca", "verify-full"}:
        raise FileNotFoundError(
            f'the root certificate file "{root}" does not exist: provide it, use the system\'s'
            " (sslrootcert=system), or choose an sslmode that verifies nothing"
        )
    else:
        return
    made.verify_mode = ssl.CERT_REQUIRED
    with contextlib.suppress(OSError):  # libpq goes on without a list that it can't read
        made.load_verify_locations(options["sslcrl"] or None, options["sslcrldir"] or None)
        made.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _identify(made: ssl.SSLContext, options: dict[str, str]) -> None:
    """Load our own certificate, if there is one."""
    certificate, key = options["sslcert"], options["sslkey"]
    if options["sslcertmode"] == "disable" or not certificate:
        return
    try:
        Path(certificate).stat()
    except _NOT_THERE:
        return  # the server may ask for none
    try:
        found = Path(key).stat()
    except OSError as error:
        raise FileNotFoundError(
            f'the certificate "{certificate}" is there, but not its private key "{key}"'
        ) from error
    open_to_others = 0o037 if found.st_uid == 0 else 0o077
    if not stat.S_ISREG(found.st_mode) or found.st_mode & open_to_others:
        raise PermissionError(
            f'the private key "{key}" must be a file that group and world can\'t read'
        )
    # Without a password, OpenSSL would ask at the terminal.
    made.load_cert_chain(certificate, key, password=lambda: options["sslpassword"])
