"""The log as a file: what the list's filter finds, oldest first, to a browser or to a disk."""
