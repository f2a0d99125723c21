"""The admin's pages. Importing this package registers them."""

from generation.admin import api_keys, logs

__all__ = ["api_keys", "logs"]
