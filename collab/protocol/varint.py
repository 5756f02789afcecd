"""The number, byte and string forms of lib0, read from hostile bytes and written."""

from __future__ import annotations

from collab.errors import InvalidMessage

MAX_NUMBER = (1 << 53) - 1  # the largest integer that JavaScript counts exactly


class Reader:
    """A cursor over one frame.

    Strict: a number has one spelling and at most 53 bits, a length stays inside the frame, a string is
    UTF-8. Whatever breaks that raises `InvalidMessage`; the cursor's place is then undefined.
    """

    __slots__ = ("at", "frame")

    def __init__(self, frame: bytes, at: int = 0) -> None:
        self.frame = frame
        self.at = at

    def read_varint(self) -> int:
        """An unsigned number."""
        frame, at = self.frame, self.at
        try:
            byte = frame[at]
            if byte < 128:
                self.at = at + 1
                return byte
            value = byte & 127
            shift = 7
            while byte > 127:
                at += 1
                byte = frame[at]
                value |= (byte & 127) << shift
                shift += 7
                if shift > 56:
                    raise InvalidMessage("a number is longer than eight bytes")
        except IndexError:
            raise InvalidMessage("the message ends too early") from None
        if byte == 0 or value > MAX_NUMBER:
            raise InvalidMessage("a number is padded or over 53 bits")
        self.at = at + 1
        return value

    def read_signed(self) -> int:
        """A signed number: the sign and six bits, then seven bits a byte."""
        if self.at_end:
            raise InvalidMessage("the message ends too early")
        first = self.frame[self.at]
        self.at += 1
        value = first & 63
        if first & 128:
            value |= self.read_varint() << 6
            if value < 64 or value > MAX_NUMBER:
                raise InvalidMessage("a number is padded or over 53 bits")
        return -value if first & 64 else value

    def read_bytes(self) -> bytes:
        """A length and that many bytes."""
        length = self.read_varint()
        start = self.at
        end = start + length
        if end > len(self.frame):
            raise InvalidMessage("the message ends too early")
        self.at = end
        return self.frame[start:end]

    def read_string(self, max_bytes: int) -> str:
        """A length and that many bytes of UTF-8, unpaired surrogates excluded."""
        encoded = self.read_bytes()
        if len(encoded) > max_bytes:
            raise InvalidMessage(f"a string is longer than {max_bytes} bytes")
        try:
            return encoded.decode()
        except UnicodeDecodeError:
            raise InvalidMessage("a string is not UTF-8") from None

    @property
    def at_end(self) -> bool:
        """Nothing is left to read."""
        return self.at == len(self.frame)

    def expect_end(self) -> None:
        """Refuse bytes after the message."""
        if self.at != len(self.frame):
            raise InvalidMessage("bytes follow the message")


def encode_varint(number: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first."""
    if number < 128:
        return _SHORT[number]
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_signed(number: int) -> bytes:
    """A signed number: the sign and six bits, then seven bits a byte."""
    size = abs(number)
    first = size & 63 | (64 if number < 0 else 0)
    return (
        _SHORT[first] if size < 64 else bytes((first | 128,)) + encode_varint(size >> 6)
    )


def encode_bytes(content: bytes) -> bytes:
    """The bytes after their length."""
    return encode_varint(len(content)) + content


def encode_string(text: str) -> bytes:
    """UTF-8 after its length in bytes; unpaired surrogates become U+FFFD, as lib0 writes them."""
    try:
        return encode_bytes(text.encode())
    except UnicodeEncodeError:
        return encode_bytes(
            text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        )


_SHORT = [bytes((number,)) for number in range(128)]
