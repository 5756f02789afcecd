"""A file system so small that a test can fill it. Mounting one needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_BYTES = 8 << 20
# On a full disk the store still has what it laid ahead of its log: at most half a megabyte, as little as these tests
# write. One update of this size does not fit in there; a server must be told to take it.
TOO_MUCH = 900_000
TAKING_IT = ("--max-update-bytes", "1000000")

IS_ROOT = os.geteuid() == 0


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """An empty file system at `place`, gone at the end."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}"]
    subprocess.run(["mount", *options, "collab-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(filler: Path) -> None:
    """Take the last byte of the file system that this file is on."""
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue  # full, for blocks of this size
