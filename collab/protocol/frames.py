"""WebSocket frames as a server sends them (RFC 6455, section 5).

Server frames are not masked, so one `bytes` object serves every member who should get the same message.
"""

from __future__ import annotations

PING = b"\x89\x00"


def frame(message: bytes) -> bytes:
    """One binary message as one frame."""
    n = len(message)
    if n < 126:
        return bytes((0x82, n)) + message
    if n < 65536:
        return b"\x82\x7e" + n.to_bytes(2, "big") + message
    return b"\x82\x7f" + n.to_bytes(8, "big") + message


def pong_frame(application: bytes) -> bytes:
    """The answer to a ping; at most 125 bytes."""
    return bytes((0x8A, len(application))) + application


def is_farewell(data: bytes) -> bool:
    """Whether bytes from a client end with a close frame, as far as can be told without reading all before them."""
    for n in (2, 0, *range(3, 126)):
        if data[-n - 6 : -n - 4] == bytes((0x88, 0x80 | n)):
            return True
    return False


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is cut to the 123 bytes there is room for, never inside a character."""
    text = reason.encode()[:123].decode(errors="ignore").encode()
    return bytes((0x88, len(text) + 2)) + code.to_bytes(2, "big") + text
