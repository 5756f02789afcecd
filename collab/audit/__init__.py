"""Who did what: an append-only file whose lines hang together by their hashes."""
