"""What of a generation's texts may be kept, and in which form.

`ContentPolicy.apply()` is the one place that decides it, before a row reaches the journal or the
database; `KeyRing.read()` is the one place that reads what was encrypted.
"""
