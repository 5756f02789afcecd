"""Valid updates made hostile: bytes damaged at random, and structure twisted on purpose."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from collab.protocol.varint import encode_string, encode_varint

ODD_BYTES = (0, 1, 2, 7, 10, 63, 64, 127, 128, 191, 192, 255)
ODD_NUMBERS = (0, 1, 127, 128, 2**14, 2**21, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53 - 1, 2**53)  # fmt: skip


def mutate(chance: Random, update: bytes, others: list[bytes]) -> bytes:
    """One to three damages, or a twisted structure; `others` lend bytes and ids."""
    if chance.random() < 0.2:
        return chance.choice(TWISTS)(chance, update, chance.choice(others))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        update = chance.choice(DAMAGES)(chance, update, chance.choice(others))
    return update


def place(chance: Random, update: bytes) -> int:
    """Mostly near the start, where the heads are."""
    limit = len(update)
    if chance.random() < 0.5:
        limit = min(limit, 40)
    return chance.randrange(limit) if limit else 0


def flip_a_bit(chance: Random, update: bytes, other: bytes) -> bytes:
    at = place(chance, update)
    bit = 1 << chance.randrange(8)
    return update[:at] + bytes(byte ^ bit for byte in update[at : at + 1]) + update[at + 1 :]  # fmt: skip


def set_a_byte(chance: Random, update: bytes, other: bytes) -> bytes:
    at = place(chance, update)
    byte = chance.choice(ODD_BYTES) if chance.random() < 0.7 else chance.randrange(256)
    return update[:at] + bytes((byte,)) + update[at + 1 :]


def put_a_number(chance: Random, update: bytes, other: bytes) -> bytes:
    at = place(chance, update)
    gone = chance.randrange(6)
    number = encode_varint(chance.choice(ODD_NUMBERS))
    return update[:at] + number + update[at + gone :]


def cut_out(chance: Random, update: bytes, other: bytes) -> bytes:
    at = place(chance, update)
    return update[:at] + update[at + 1 + chance.randrange(8) :]


def cut_off(chance: Random, update: bytes, other: bytes) -> bytes:
    return update[: chance.randrange(len(update) + 1)]


def insert_noise(chance: Random, update: bytes, other: bytes) -> bytes:
    at = place(chance, update)
    return update[:at] + chance.randbytes(1 + chance.randrange(6)) + update[at:]


def repeat_a_part(chance: Random, update: bytes, other: bytes) -> bytes:
    at = place(chance, update)
    part = update[at : at + 1 + chance.randrange(24)]
    return update[:at] + part * (1 + chance.randrange(3)) + update[at:]


def splice(chance: Random, update: bytes, other: bytes) -> bytes:
    at, there = place(chance, update), place(chance, other)
    return update[:at] + other[there : there + 1 + chance.randrange(30)] + update[at:]


def continue_as_another(chance: Random, update: bytes, other: bytes) -> bytes:
    return update[: place(chance, update)] + other[place(chance, other) :]


Change = Callable[[Random, bytes, bytes], bytes]
DAMAGES: tuple[Change, ...] = (
    flip_a_bit,
    flip_a_bit,
    set_a_byte,
    set_a_byte,
    put_a_number,
    cut_out,
    cut_off,
    insert_noise,
    repeat_a_part,
    splice,
    continue_as_another,
)


def head(update: bytes) -> tuple[bytes, bytes]:
    """The varints of the first section's client and clock, if the update has that form; else something like it."""
    at = 1
    parts = []
    for _ in range(3):
        start = at
        while update[at : at + 1] > b"\x7f":
            at += 1
        at += 1
        parts.append(update[start:at] or b"\x05")
    return parts[1], parts[2]


def section_of_nothing(chance: Random, update: bytes, other: bytes) -> bytes:
    client, clock = head(update)
    return b"\x01\x00" + client + clock + b"\x00"


def same_client_twice(chance: Random, update: bytes, other: bytes) -> bytes:
    """What makes a circle of the list inside yrs."""
    if update[:1] != b"\x01" or update[-1:] != b"\x00":
        return update
    sections = [update[1:-1], update[1:-1]]
    if other[:1] == b"\x01" and other[-1:] == b"\x00" and head(other)[0] == head(update)[0]:  # fmt: skip
        sections[chance.randrange(2)] = other[1:-1]
    return b"\x02" + b"".join(sections) + b"\x00"


def values_in_values(chance: Random, update: bytes, other: bytes) -> bytes:
    opening = chance.choice((b"\x75\x01", b"\x76\x01\x01k"))
    deep = opening * chance.choice((63, 64, 65, 2_000, 30_000)) + b"\x7e"
    return b"\x01\x01\x05\x00\x08\x01\x01t\x01" + deep + b"\x00"


def types_in_types(chance: Random, update: bytes, other: bytes) -> bytes:
    count = chance.choice((100, 129, 131, 3_000))
    structs = [b"\x07\x01" + encode_string("array") + b"\x00"]
    structs += [b"\x07\x00\x05" + encode_varint(n) + b"\x00" for n in range(count - 1)]
    return b"\x01" + encode_varint(count) + b"\x05\x00" + b"".join(structs) + b"\x00"


def huge_client(chance: Random, update: bytes, other: bytes) -> bytes:
    client = encode_varint(2**53 + chance.choice((-1, 0, 1, 2**20)))
    return b"\x01\x01" + client + b"\x00\x04\x01\x04text\x01a\x00"


def burnt_clock(chance: Random, update: bytes, other: bytes) -> bytes:
    """Garbage, or deletions, up to the end of somebody's clock."""
    client, clock = head(update)
    length = encode_varint(chance.choice((2**31 - 1, 2**31, 2**32 - 1)))
    if chance.random() < 0.5:
        return b"\x01\x01" + client + clock + b"\x00" + length + b"\x00"
    return b"\x00\x01" + client + b"\x01" + clock + length


def before_its_time(chance: Random, update: bytes, other: bytes) -> bytes:
    """Another clock for the same structs: a hole before them, or an overlap with what is known."""
    client, clock = head(update)
    at = update.find(client + clock, 1)
    if at < 0:
        return update
    moved = encode_varint(chance.choice((0, 1, 2, 5, 30, 1000)))
    return update[: at + len(client)] + moved + update[at + len(client + clock) :]


def misread(chance: Random, update: bytes, other: bytes) -> bytes:
    """The two kinds that yrs reads otherwise than they are written, with something hidden in what it reads on."""
    hidden = encode_string("1") + b"\x75\x01" * chance.choice((10, 100))
    kind = chance.choice((b"\x02\x01\x01t\x01" + encode_string("1"), b"\x07\x01\x01t\x05"))  # fmt: skip
    return b"\x01\x02\x05\x00" + kind + hidden + b"\x00"


TWISTS: tuple[Change, ...] = (
    section_of_nothing,
    same_client_twice,
    values_in_values,
    types_in_types,
    huge_client,
    burnt_clock,
    before_its_time,
    before_its_time,
    misread,
)
