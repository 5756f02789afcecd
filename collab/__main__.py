"""`python -m collab` and the command `collab`."""

from __future__ import annotations

import gc

# What imports make stays, and Python's cycle collector goes over all of it again and again.
gc.set_threshold(50_000, 20, 100)

from collab.cli import main  # noqa: E402 - the collector is set first

if __name__ == "__main__":
    main()
