"""Two replicas with nothing but a Redis between them, as the user that the documentation tells to make."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import Server, eventually
from redis_user import make_user, of_user
from services import Redis


def ask(server: Server, path: str, method: str = "GET", body: object = None) -> Any:
    request = urllib.request.Request(
        server.url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read() or "null")


def write(server: Server, text: str) -> None:
    splice = {"root": "text", "index": 0, "insert": text}
    ask(server, "/v1/rooms/notes/document", "PATCH", {"splices": [splice]})


def read(server: Server) -> str:
    found: str = ask(server, "/v1/rooms/notes/document")["text"]
    return found


def test_an_edit_made_at_one_is_read_at_the_other_and_after_both_have_ended(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    with Redis(aof="always") as redis:
        password = make_user([redis], tmp_path)
        flags = "--redis", of_user(redis.url), "--redis-password-file", str(password)
        one, other = serve(*flags), serve(*flags)

        write(one, "world")
        assert eventually(lambda: read(other) == "world")
        write(other, "hello ")
        assert eventually(lambda: read(one) == "hello world")
        one.kill()
        other.terminate()
        redis.restart()
        make_user([redis], tmp_path)
        one.start()

        assert read(one) == "hello world"
        assert [room["name"] for room in ask(one, "/v1/rooms")["rooms"]] == ["notes"]
        assert redis.do("ACL", "LOG") == []
        assert "secret" not in one.logs()
