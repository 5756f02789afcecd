"""A store in Redis: the log of each room is a stream."""
