"""What the service did over a time, from rollups: the dashboard, the errors, and the index page's
short form. `periods.py` says which buckets that takes, and `runs.py` how statements read them;
`sums.py` and `spenders.py` are the dashboard's statements.
"""
