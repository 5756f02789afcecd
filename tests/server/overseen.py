"""Workers that share nothing but a port, as a program: `overseen.py WORKERS PORT FLAGS…`; and what tests ask of it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

if __name__ != "__main__":
    from processes import Server

    class Workers(Server):
        """A supervisor and its workers, each with a store of its own in memory."""

        count = 2

        def command(self) -> list[str]:
            return [sys.executable, __file__, str(self.count), str(self.port)]

        @property
        def workers(self) -> list[int]:
            return children(self.pid)

    def children(pid: int) -> list[int]:
        """The processes that it has started and that live."""
        return list(
            map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        )

    def lives(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"


def main(count: str, port: str, *flags: str) -> int:
    from collab import logs
    from collab.server import banner
    from collab.server.supervisor import Supervisor, bind

    logs.configure(log_format="json", level="info")
    listening = bind("127.0.0.1", int(port), int(count))
    command = [sys.executable, "-m", "collab", "worker", "--store", "memory", *flags]
    supervisor = Supervisor(
        command,
        listening,
        patience_seconds=40,
        hung_seconds=float(os.environ.get("HUNG_SECONDS", "30")),
    )
    is_secure = "--tls-key" in flags
    return asyncio.run(
        supervisor.run(lambda: banner.show(listening[0], is_secure=is_secure))
    )


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    sys.exit(main(*sys.argv[1:]))
