"""Django's own connections: which of them a request holds, and giving them back.

It needs Django alone, and works with every database and under every server.
"""
