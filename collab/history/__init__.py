"""Who did what in a room, what it was, and how a turn is taken back: read from the log."""
