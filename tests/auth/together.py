"""Several who open one shelf at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable

from collab.auth.registry import Registry
from collab.auth.shelves.base import Shelf

COUNT = 6


def revoke_together(open_shelf: Callable[[], Shelf]) -> list[BaseException]:
    """Each begins a registry and revokes somebody in it; returns what went wrong."""
    faults: list[BaseException] = []
    start = threading.Barrier(COUNT)

    def begin(name: str) -> None:
        start.wait(10)
        try:
            with Registry(open_shelf()) as registry:
                registry.revoke(name)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=begin, args=(f"p{n}",)) for n in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults
