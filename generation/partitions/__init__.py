"""The log's tables are partitioned by the time in their ids: see `intervals.py` for which partition
has a row, `ddl.py` for the SQL, `maintenance.py` for when it runs.
"""
