"""The native API for a project's own routes, behind its own middleware and its own logins."""
