"""LLM calls without holding a database connection."""

__version__ = "0.1.0"
