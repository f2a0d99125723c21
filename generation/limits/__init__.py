"""What callers may spend: how it is decided, counted and answered.

A call reserves the most that it may cost before it is made, from blocks that this process has
leased from PostgreSQL, and settles what it did cost in the statement that inserts its row. So a
call takes no statement of its own, and all processes together stay within a limit.
"""
