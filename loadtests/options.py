"""The flags of a run, for `make load` and for locust itself."""

from __future__ import annotations

import argparse
import re
import secrets

import targets
from shapes import SHAPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All but what locust has already: the number of users and of processes."""
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="how long, starting up included"
    )
    parser.add_argument(
        "--rooms", type=int, default=4, help="rooms that the users share"
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="steady")
    parser.add_argument(
        "--url",
        default="",
        help="where the server is, ws:// or wss://; several with commas between: each connection takes one of them",
    )
    parser.add_argument(
        "--think-seconds",
        type=float,
        default=1.0,
        help="mean pause of an editor between two edits",
    )
    parser.add_argument(
        "--settle-seconds",
        type=float,
        default=15.0,
        help="how long after the end everything may take to be saved and the same everywhere",
    )
    parser.add_argument(
        "--max-failures",
        type=int,
        default=0,
        help="failed events that are put up with, while servers are being killed for instance",
    )
    parser.add_argument(
        "--nonce",
        default=secrets.token_hex(4),
        help="part of every room's name, so that runs never meet",
    )
    parser.add_argument("--results", default="", help="folder of the reports")
    targets.add_arguments(parser)


def addresses(url: str) -> list[str]:
    """Those of `--url`, as a WebSocket wants them."""
    parts = (part.strip().rstrip("/") for part in url.split(","))
    return [re.sub("^http", "ws", part) for part in parts if part]
