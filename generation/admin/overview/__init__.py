"""What the service did over a time, from rollups: the dashboard, the errors, the spending of a user
or API key, and the index page's short form. `periods.py` says which buckets that takes, and
`runs.py` how statements read them; `sums.py` and `spenders.py` are the dashboard's statements. The
pages are made of `parts.py`, whose figures `writing.py` writes.
"""
