"""What the service did over a time, from rollups: the dashboard, the errors, and the index page's
short form. `periods.py` says which buckets that takes, `sums.py` and `spenders.py` read them.
"""
