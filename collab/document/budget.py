"""What the edits of one request may cost."""

from __future__ import annotations

from collab.errors import TooLarge

# In units of about 5 ns: longer than 0.3 s a request must not keep the event loop.
MAX_WORK = 60_000_000
# To load a snapshot, five times what honest ones need: what was made to be slow to merge is slow again in each copy.
LOAD_SECONDS = 0.2
LOAD_BYTE_SECONDS = 1.5e-6
VALUE_WORK = 1000  # to read or write one value
COMPARISON_WORK = 60


class Budget:
    """What may still be spent."""

    def __init__(self, left: int = MAX_WORK) -> None:
        self.left = left

    def spend(self, work: int) -> None:
        """Raises TooLarge when there is not so much left."""
        self.left -= work
        if self.left < 0:
            raise TooLarge("work of one request")
