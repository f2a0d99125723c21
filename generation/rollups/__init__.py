"""Sums of the log by time, recomputed from it: see `buckets.py` for their lengths, `statements.py`
for the SQL, `upkeep.py` for when it runs.
"""
