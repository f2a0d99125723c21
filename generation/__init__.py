"""LLM calls in Django that never hold a database connection while the model thinks."""
