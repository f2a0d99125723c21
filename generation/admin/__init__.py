"""The admin's pages. Importing this package registers them."""

from generation.admin import api_keys, logs, profiles, usage

__all__ = ["api_keys", "logs", "profiles", "usage"]
