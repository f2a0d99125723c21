"""Finding rows of the log: what is asked for (`selection`), which parts of the log can hold such
rows (`guide`), and how they are read within a bounded time (`walk`, `places`).
"""
