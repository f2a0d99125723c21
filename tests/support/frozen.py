"""Imported last by the process that forks: its children's collector passes over the libraries.

To go through them takes time at each start, and copies the pages that parent and child share.
"""

import gc

gc.collect()
gc.freeze()
