"""Several updates of one author as one, so that whoever reads them has less to do."""

from __future__ import annotations

from collections.abc import Sequence

from pycrdt import merge_updates

from collab.errors import Refused
from collab.protocol.structs import scan

MAX_BYTES = 1 << 14  # of all together; more is passed on as it came


def bundled(updates: Sequence[bytes]) -> bytes | None:
    """One update that says the same, of some that a document has taken one after the other.

    None where they are long, or where one repeats another: native code would cut them, and a character in halves with them.
    """
    if sum(map(len, updates)) > MAX_BYTES:
        return None
    reached: dict[int, int] = {}
    try:
        for update in updates:
            for client, clock, end, *_ in scan(update).runs:
                if clock < reached.get(client, 0):
                    return None
                reached[client] = end
        return merge_updates(*updates)
    except (Refused, ValueError):
        return None
    except Exception:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a Rust panic is not an Exception
        return None
