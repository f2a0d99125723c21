"""The certificate authorities that a server is trusted by: those of the system, or of a file."""

from __future__ import annotations

import ssl
from pathlib import Path


def tls(authorities: str | None = None) -> ssl.SSLContext:
    """Returns what connections are made with. Of the system's authorities, 20 ms are to read them.

    `authorities` are to be trusted, too, as PEM. Raises `ValueError` if they can't be read.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if authorities is not None:
        try:
            context.load_verify_locations(cadata=authorities)
        except ssl.SSLError as error:
            raise ValueError(f"no certificates can be read: {error}") from error
    return context


def has_authorities() -> bool:
    """Whether the system has any, or those that SSL_CERT_FILE and SSL_CERT_DIR name."""
    if tls().get_ca_certs():
        return True
    folder = ssl.get_default_verify_paths().capath  # of which each is read when it is needed
    return folder is not None and any(Path(folder).glob("*.[0-9]"))
