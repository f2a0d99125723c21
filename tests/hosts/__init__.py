"""Other people's projects: each is a process with a database and settings of its own."""
