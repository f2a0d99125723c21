"""How long idle connections are kept, and when one counts as closed while it was idle."""

# Below the idle limit of common load balancers (60 s), so that the other side rarely closes a
# connection just when we use it again.
IDLE_S = 30.0
MAX_IDLE = 10_000  # to one server

# A provider that closes an idle connection just when we use it again has not read the request, and
# we learn of it within a round trip. Later, it may have worked on the prompt and charged for it.
STALE_WITHIN_S = 2.0
