"""The admin's pages. Importing this package registers them."""

from generation.admin import accesses, api_keys, limits, logs, profiles, storage, usage

__all__ = ["accesses", "api_keys", "limits", "logs", "profiles", "storage", "usage"]
