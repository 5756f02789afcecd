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
    RootModel,
)

from collab.errors import InvalidRequest, InvalidRoomName
from collab.names import principal_id, room_name

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


def _whole(value: object) -> object:
    """JSON has one kind of number: 5.0 is five."""
    if isinstance(value, float) and value.is_integer():
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


def _prefix(value: str) -> str:
    return value and _name(value)


def _principal(value: str) -> str:
    try:
        return principal_id(value)
    except InvalidRequest as error:
        raise ValueError(str(error)) from None


Count = Annotated[int, BeforeValidator(_digits)]
Position = Annotated[int, Field(ge=0), BeforeValidator(_digits)]
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
OperationName = Literal["read", "write", "presence", "history", "admin", "rewrite"]
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
    BeforeValidator(_whole),
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
    rule: str = Field("", description="Which rule an update or a limit broke.")
    positions: list[int] = Field([], description="Where an ambiguous text is.")


# Rooms


class RoomsQuery(Model):
    prefix: str = Field("", max_length=256, description="Names that begin so.")
    cursor: str = Field("", max_length=512, description="`next` of the page before.")
    limit: Count = Field(100, ge=1, le=MAX_PAGE, description="Rooms on one page.")
    deleted: Truth = Field(
        False, description="Deleted rooms that can still be restored, instead."
    )


class RoomInfo(Model):
    """A room as it is stored."""

    name: str
    epoch: str = Field(description="The history its positions belong to.")
    position: int = Field(description="Of the last update in the log.")
    bytes: int = Field(description="Of log, checkpoints and attribution.")
    created_milliseconds: int
    changed_milliseconds: int
    deleted_milliseconds: int | None = Field(
        description="Null while the room is there."
    )
    metadata: dict[str, JsonValue]
    history_seconds: int | None = Field(description="Null: the log is kept for ever.")
    members: int = Field(description="Connections at this server now.")


class Rooms(Model):
    rooms: list[RoomInfo]
    next: str | None = Field(
        description="Cursor of the next page, which may be empty; null after the last."
    )


class NewRoom(Model):
    name: RoomName
    metadata: Metadata = {}
    history_seconds: HistorySeconds | None = None


class RoomChange(Model):
    """What is not named stays as it is."""

    metadata: Metadata = Field({}, description="In place of what was there.")
    history_seconds: HistorySeconds | None = None


# Presence


class Stay(Model):
    """To be present without a socket."""

    state: dict[str, JsonValue] = Field(
        description="As a client's awareness state: `user` with a `name` and a `color`, a `cursor`."
    )
    ttl_seconds: Annotated[int, Field(ge=1, le=300), BeforeValidator(_whole)] = Field(
        30, description="Gone after that, unless it is said again."
    )


class Stayed(Model):
    client: int = Field(description="The client id that the others see.")
    expires_milliseconds: int


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
    role: str
    on_behalf_of: str
    turn: str | None = Field(description="The turn it has open.")
    connection: str
    dialect: str
    since_milliseconds: int
    operations: list[str]
    address: str | None = Field(description="For administrators only.")


class Members(Model):
    members: list[MemberInfo]
    partial: bool = Field(
        description="Whether some may be missing: a replica did not answer within a second, or has too many."
    )


# Credentials


Principal = Annotated[
    str,
    AfterValidator(_principal),
    Field(
        min_length=1,
        max_length=256,
        description="Its id, as its tokens have it.",
        json_schema_extra={"format": "principal-id"},
    ),
]
Seconds = Annotated[
    int,
    Field(ge=1, le=10 * 365 * 24 * 3600, description="Then it ends by itself."),
    BeforeValidator(_whole),
]


class Ticket(Model):
    room: RoomName | None = Field(None, description="Good for this room only.")


class NewTicket(Model):
    ticket: str = Field(
        description="For `?ticket=` in the address of a socket. Good once."
    )
    expires_milliseconds: int
    operations: list[str] = Field(
        description="What it allows in the room it is for, if it is for one."
    )


Operations = Annotated[list[OperationName], Field(min_length=1, max_length=5)]
Prefix = Annotated[
    str,
    AfterValidator(_prefix),
    Field(
        max_length=256,
        pattern="^(.*/)?$",
        description="Ends in a slash; empty is every room.",
        json_schema_extra={"format": "room-prefix"},
    ),
]


class InRoom(Model):
    """Operations in one room."""

    room: RoomName
    operations: Operations


class UnderPrefix(Model):
    """Operations in all rooms whose names begin so."""

    prefix: Prefix
    operations: Operations


Scope = InRoom | UnderPrefix


class NewKey(Model):
    principal: Principal
    kind: Literal["human", "agent", "service"] = "service"
    name: str = Field("", max_length=256, description="To be shown to others.")
    role: str = Field("", max_length=256, description="What it does, to be shown.")
    on_behalf_of: str = Field(
        "",
        max_length=256,
        description="The principal it acts for, of your tenant: who may take back what it did, and with whom it ends.",
    )
    grants: list[Scope] = Field(max_length=100)
    seconds: Seconds | None = None


class KeyInfo(Model):
    """An API key without its secret."""

    id: str
    principal: str
    tenant: str
    kind: str
    name: str
    role: str
    on_behalf_of: str
    grants: list[dict[str, JsonValue]]
    created: float
    expires: float | None
    revoked: float | None
    replaced_by: str | None


class MadeKey(Model):
    key: KeyInfo
    token: str = Field(description="Shown this once.")


class Keys(Model):
    keys: list[KeyInfo]


class GrantInRoom(InRoom):
    principal: Principal
    seconds: Seconds | None = None


class GrantUnderPrefix(UnderPrefix):
    principal: Principal
    seconds: Seconds | None = None


class NewGrant(RootModel[GrantInRoom | GrantUnderPrefix]):
    """Operations for a principal, in one room or under a prefix."""


class GrantInfo(Model):
    tenant: str
    principal: str
    room: str | None = None
    prefix: str | None = None
    operations: list[str]
    created: float
    expires: float | None


class Grants(Model):
    grants: list[GrantInfo]


class GrantsQuery(Model):
    principal: str | None = Field(None, max_length=256)


class GrantQuery(Model):
    principal: Principal
    room: str = Field(max_length=256, description="The room, or the prefix.")
    is_prefix: Truth = Field(False, description="Whether it is a prefix.")


class CancelQuery(Model):
    principal: str = Field(
        "",
        max_length=256,
        description="Whose turn it is; whoever has it open when empty.",
    )


class OfPrincipal(Model):
    """Ends all credentials of a principal that were issued until now."""

    principal: Principal


class OfToken(Model):
    """Ends one credential."""

    token: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="The `jti` of a JWT, the id of an API key."
    )


class Revocation(RootModel[OfPrincipal | OfToken]):
    """What is to end."""


class Recheck(Model):
    principal: Principal | None = Field(None, description="Everybody's, else.")


class Revoked(Model):
    keys: int = Field(description="API keys that ended with it.")


# Documents


RootName = Annotated[
    str,
    Field(max_length=256, description="What the document calls this root type."),
]
Pointer = Annotated[
    str,
    Field(
        pattern="^(/([^~]|~[01])*)$",
        max_length=4096,
        description="A JSON Pointer whose first part names the root.",
    ),
]
Attributes = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=256)], JsonValue],
    Field(max_length=32),
]
MAX_PLACE = (1 << 31) - 1
Index = Annotated[int, Field(ge=0, le=MAX_PLACE), BeforeValidator(_whole)]


class DocumentQuery(Model):
    format: Literal["json", "text", "markdown", "update"] | None = Field(
        None, description="Goes before the Accept header."
    )
    root: str = Field(
        "",
        max_length=256,
        description="Which root to read as text or Markdown; need not be said of the only one.",
    )
    state_vector: str | None = Field(
        None,
        max_length=65_536,
        pattern="^[A-Za-z0-9_-]*=*$",
        description="In base64url: only what that lacks, as an update.",
        json_schema_extra={"format": "state-vector"},
    )
    min_position: Position | None = Field(
        None,
        description="Wait until the log holds this position, for 5 s at most: then 425.",
    )
    at: Position | None = Field(
        None, description="As it was at this position of the log; needs history."
    )
    at_time: Position | None = Field(
        None, description="As it was then, in milliseconds since 1970; needs history."
    )


Said = Annotated[
    str, Field(max_length=256, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")
]


class EditQuery(Model):
    """Which turn an edit belongs to, if any, and what is to be known of it."""

    turn: str = Field(
        "",
        max_length=64,
        pattern="^[A-Za-z0-9._~-]*$",
        description="Edits of one turn are credited and taken back together.",
    )
    task: Said = ""
    model: Said = ""
    reason: Said = ""


class Saved(Model):
    """What was asked for is in the log."""

    epoch: str
    position: int


class PatchOperation(Model):
    """Of JSON Patch (RFC 6902). Members that do not belong to it are ignored."""

    model_config = ConfigDict(extra="ignore", serialize_by_alias=True)

    path: Pointer


class PatchAdd(PatchOperation):
    op: Literal["add"]
    value: JsonValue


class PatchReplace(PatchOperation):
    op: Literal["replace"]
    value: JsonValue


class PatchTest(PatchOperation):
    op: Literal["test"]
    value: JsonValue


class PatchRemove(PatchOperation):
    op: Literal["remove"]


class PatchMove(PatchOperation):
    op: Literal["move"]
    source: Pointer = Field(alias="from")


class PatchCopy(PatchOperation):
    op: Literal["copy"]
    source: Pointer = Field(alias="from")


class Patch(
    RootModel[
        Annotated[
            list[
                Annotated[
                    PatchAdd
                    | PatchReplace
                    | PatchTest
                    | PatchRemove
                    | PatchMove
                    | PatchCopy,
                    Field(discriminator="op"),
                ]
            ],
            Field(max_length=1000),
        ]
    ]
):
    """Applied in order, all or nothing. A root is not removed but emptied, and stays the map, list or text it is."""


class Splice(Model):
    """Places are counted in characters (code points); those before it have been applied."""

    root: RootName
    index: Index
    delete: Index = 0
    insert: str = ""
    attributes: Attributes | None = Field(
        None, description="Of what is inserted, in a rich text."
    )


class Splices(Model):
    splices: list[Splice] = Field(max_length=1000)


class Replacement(Model):
    """Must be there once. 409 `ambiguous_text` says where it is, `text_not_found` that it is not there."""

    root: RootName
    old: str = Field(min_length=1)
    new: str
    near: Index | None = Field(None, description="Of several, the one closest to here.")


class Replacements(Model):
    replacements: list[Replacement] = Field(max_length=1000)


class Content(Model):
    root: RootName
    content: str


class WholeText(Model):
    """Only what differs from it is changed."""

    text: Content


class Edits(RootModel[Splices | Replacements | WholeText]):
    """Edits of texts, in one of three ways."""


class UpdatesQuery(Model):
    after: Position | None = Field(
        None, description="The position of the last one that is known."
    )
    limit: Count = Field(100, ge=1, le=MAX_PAGE, description="Updates on one page.")


class About(Model):
    """Each is empty when it is not known."""

    name: str = ""
    kind: str = ""
    on_behalf_of: str = ""
    role: str = ""
    task: str = ""
    model: str = ""
    reason: str = ""
    undoes: str = Field("", description="The turn that this one takes back.")
    by: str = Field("", description="The principal of that turn.")


class UpdateInfo(Model):
    """An update as the log has it."""

    position: int
    milliseconds: int
    principal: str
    connection: str
    turn: str | None
    about: About = Field(description="What is known of the turn and the principal.")
    update: str = Field(description="Yjs bytes (version 1) in base64.")


class Updates(Model):
    epoch: str
    position: int = Field(description="Of the last update in the log.")
    updates: list[UpdateInfo]
    next: int | None = Field(description="`after` of the next page; null at the end.")


# History


class ShownAuthor(Model):
    """Who did it, and as a part of what. What is not known is empty."""

    principal: str = Field(
        description="Whose the characters are; empty where the log does not reach back."
    )
    name: str
    kind: str = Field(description="human, agent or service.")
    on_behalf_of: str = Field(description="The principal that asked for it.")
    role: str
    turn: str
    task: str
    model: str
    reason: str
    undoes: str = Field(description="The turn that this one takes back.")
    by: str = Field(description="Whose turn that was.")
    introduced_by: str = Field(
        description="Who brought it in, where that is another principal. The turn is then one of that principal."
    )


Milliseconds = Annotated[int, Field(description="Since 1970.")]
Whose = Annotated[
    str,
    Field(
        max_length=256,
        description="Whose turn: without it your own, or the only one of that id.",
    ),
]


Inside = Annotated[
    str,
    Field(
        pattern="^(/([^~]|~[01])*)?$",
        max_length=4096,
        description="A JSON Pointer inside the root, to what lies in it; XML is counted by its nodes.",
    ),
]


class BlameQuery(Model):
    root: str = Field(
        "",
        max_length=256,
        description="Need not be said of the only text, else of the only XML, else of the only other root.",
    )
    path: Inside = ""
    start: Position = Field(0, description="In characters, of a list in items.")
    end: Position | None = Field(None, description="Not included; to the end, else.")
    at: Position | None = Field(
        None, description="As it was at this position of the log."
    )


class Span(Model):
    """Characters, items or a key that stand together, of one author and minute."""

    start: int = Field(description="Of a key its number, by the order of their names.")
    end: int
    author: int = Field(description="Which of `authors`.")
    time: Milliseconds
    path: str | None = Field(
        None, description="In XML: inside the root, the text or what begins the line."
    )
    key: str | None = Field(None, description="Of a map.")


class Blame(Model):
    epoch: str
    position: int = Field(description="Of the document that is meant.")
    root: str
    path: str
    kind: Literal["text", "xml", "array", "map", "value", "empty"]
    authors: list[ShownAuthor]
    spans: list[Span]


class ChangesetQuery(Model):
    model_config = ConfigDict(validate_by_name=False)

    after: Position = Field(alias="from", description="After this position of the log.")
    to: Position | None = Field(None, description="Up to this one; to the end, else.")
    root: str = Field("", max_length=256, description="Of this root only.")
    path: Inside = ""


class Change(Model):
    """At one place, what one author took away and put there. An element is `{"tag", "attributes", "children"}`."""

    kind: Literal["text", "items", "key"] = Field(
        description="In a text; in a list or among the nodes of XML; of a map, or an attribute of an element."
    )
    root: str
    path: str = Field(description="Inside the root: of what has changed.")
    start: int = Field(description="In characters or items at `to`; 0 of a key.")
    key: str | None = Field(None, description="Which, when it is one.")
    old: str | list[JsonValue] = Field(
        description="Characters of a text; else values: of a key one, or none."
    )
    new: str | list[JsonValue]
    author: int = Field(description="Which of `authors`.")
    time: Milliseconds
    position: int = Field(description="Of the last update that did it.")


class Changeset(Model):
    """What came and went in between is not in it."""

    model_config = ConfigDict(serialize_by_alias=True)

    epoch: str
    after: int = Field(alias="from")
    to: int
    authors: list[ShownAuthor]
    changes: list[Change]


class ActivityQuery(Model):
    after: Position = Field(0, description="Only what came after this position.")
    before: Position | None = Field(None, description="`next` of the page before.")
    limit: Count = Field(50, ge=1, le=MAX_PAGE, description="Entries on one page.")


class Entry(Model):
    """A turn, or what one author did without one between two pauses of five minutes."""

    author: int = Field(description="Which of `authors`.")
    first: int = Field(description="Positions in the log.")
    last: int
    began: Milliseconds
    ended: Milliseconds
    inserted: int = Field(description="As Yjs counts.")
    deleted: int
    undone_by: str = Field(description="The turn that took it back, if one did.")


class Activity(Model):
    epoch: str
    position: int = Field(description="Of the last update in the log.")
    authors: list[ShownAuthor]
    entries: list[Entry] = Field(
        description="The newest first. One that goes on before this page is told in parts."
    )
    next: int | None = Field(description="`before` of the next page; null at the end.")


class TurnQuery(Model):
    principal: Whose = ""


class TurnInfo(Model):
    """A turn as the log has it."""

    epoch: str
    position: int = Field(description="Of the last update in the log.")
    author: ShownAuthor
    first: int = Field(description="Positions in the log.")
    last: int
    began: Milliseconds
    ended: Milliseconds
    undone_by: str = Field(description="The turn that took it back, if one did.")


class TakeBack(Model):
    principal: Whose = ""
    reason: Said = Field("", description="Stands beside it in the log.")


class TakeBackRange(Model):
    principal: Annotated[
        str, Field(min_length=1, max_length=256, description="Whose edits.")
    ]
    from_time: Annotated[
        int, Field(ge=0, le=1 << 52, description="Milliseconds since 1970.")
    ]
    to_time: (
        Annotated[int, Field(ge=0, le=1 << 52, description="Until now, else.")] | None
    ) = None
    reason: Said = Field("", description="Stands beside it in the log.")


class TakenBack(Model):
    """What was asked for is in the log."""

    epoch: str
    position: int
    turn: str = Field(description="The new turn that did it; empty when none had to.")
    changed: bool
