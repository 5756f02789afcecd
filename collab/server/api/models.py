"""What the API takes and gives. Frozen, with strict types and no field that is not written here."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
)

from collab.errors import InvalidRoomName
from collab.names import room_name

MAX_PAGE = 1000
MAX_METADATA_FIELDS = 32
MAX_HISTORY_SECONDS = 10 * 365 * 24 * 3600


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _digits(value: object) -> object:
    """Of the ways to write a number in a query, only the plain one."""
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise ValueError("must be a number in decimal digits")
        return int(value)
    return value


def _truth(value: object) -> object:
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("must be true or false")
        return value == "true"
    return value


def _name(value: str) -> str:
    try:
        return room_name(value)
    except InvalidRoomName as error:
        raise ValueError(str(error)) from None


Count = Annotated[int, BeforeValidator(_digits)]
Truth = Annotated[bool, BeforeValidator(_truth)]
RoomName = Annotated[
    str,
    AfterValidator(_name),
    Field(
        min_length=1,
        max_length=256,
        description="1 to 256 bytes of UTF-8 in normal form C, without control characters.",
        json_schema_extra={"format": "room-name"},
    ),
]
OperationName = Literal["read", "write", "presence", "history", "admin"]
Plain = Annotated[str, Field(max_length=1024)] | int | float | bool | None
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Plain],
    Field(
        max_length=MAX_METADATA_FIELDS,
        description="What your application wants to remember of a room; the server does not read it.",
    ),
]
HistorySeconds = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_HISTORY_SECONDS,
        description="How long updates that a checkpoint covers are kept.",
    ),
]


class Place(Model):
    """What is wrong at one place of the request."""

    pointer: str = Field(description="JSON pointer into the body or the query.")
    detail: str


class Problem(Model):
    """An error (RFC 9457)."""

    title: str
    status: int
    detail: str
    code: str = Field(description="The stable name of the error; see PROTOCOL.md.")
    errors: list[Place] = []


# Rooms


class RoomsQuery(Model):
    prefix: str = Field("", max_length=256, description="Names that begin so.")
    cursor: str = Field("", max_length=1024, description="`next` of the page before.")
    limit: Count = Field(100, ge=1, le=MAX_PAGE, description="Rooms on one page.")
    deleted: Truth = Field(
        False, description="Deleted rooms that can still be restored, instead."
    )


class RoomInfo(Model):
    """A room as it is stored."""

    name: str
    epoch: str = Field(description="The history its positions belong to.")
    position: int = Field(description="Of the last update in the log.")
    bytes: int = Field(description="Of log and checkpoints.")
    created_milliseconds: int
    changed_milliseconds: int
    members: int = Field(description="Connections at this server now.")


class Rooms(Model):
    rooms: list[RoomInfo]
    next: str | None = Field(
        description="Cursor of the next page, which may be empty; null after the last."
    )


# Presence


class Present(Model):
    """One client that is present."""

    client: int
    principal: str
    connection: str
    state: JsonValue = Field(description="What it says of itself; `user` is checked.")


class Presence(Model):
    clients: list[Present]


# Members


class MemberInfo(Model):
    """One connection in a room."""

    principal: str
    name: str
    kind: str
    connection: str
    dialect: str
    since_milliseconds: int
    operations: list[str]
    address: str | None = Field(description="For administrators only.")


class Members(Model):
    members: list[MemberInfo]
