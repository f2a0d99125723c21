"""What the service did over a time, from rollups: the dashboard, the errors, and the index page's
short form. `periods.py` says which buckets that takes, `runs.py`, `sums.py` and `spenders.py` read them.
"""
