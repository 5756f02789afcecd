"""Simulate replicas under faults: `python tests/simulation/run.py --seed 17` runs one seed again, `--count 1000` many."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]


def main() -> int:
    from virtual import run
    from world import Broken, World

    from collab import logs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--count", type=int, default=1, help="how many, one after the other"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show what the replicas log"
    )
    chosen = parser.parse_args()
    logs.configure(log_format="console", level="debug" if chosen.verbose else "error")
    started, failed = time.monotonic(), 0
    for seed in range(chosen.seed, chosen.seed + chosen.count):
        try:
            run(World(seed).run())
        except Broken as fault:
            failed += 1
            sys.stdout.write(f"{fault}\n")
    seconds = time.monotonic() - started
    sys.stdout.write(f"{chosen.count} seeds, {failed} failed, {seconds:.1f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
