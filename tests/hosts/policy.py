"""A content security policy of the host's own, as strict as its pages allow."""

from __future__ import annotations

POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"


class EnforcedPolicy:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response
