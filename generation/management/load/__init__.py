"""A load test of a running service, as `manage.py loadtest` runs it."""
