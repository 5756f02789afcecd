"""The Python client: agents and plain programs as members of rooms. Knows nothing of the server's side."""
