"""`python -m collab` and the command `collab`."""

from __future__ import annotations

import gc

# What imports make stays, a hundred thousand objects: Python's cycle collector need not go over it while a server starts.
gc.set_threshold(200_000, 20, 100)

from collab.cli import main  # noqa: E402 - the collector is set first

if __name__ == "__main__":
    main()
