"""Nothing that was paid for is lost: real servers, frozen, stopped and killed.

`benchmarks/soak.py` does the same for longer.
"""
