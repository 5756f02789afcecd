"""Edits by text and by path: as Python's strings and a plain JSON document would have them, and as Yjs reads them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from typing import Any

import pytest
from costly import before_each, plain, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment

from collab.document.document import Document
from collab.document.edits import (
    MAX_OPERATIONS,
    Draft,
    Operation,
    Replacement,
    Rewrite,
    Splice,
    edit,
)
from collab.document.export import to_json, to_text
from collab.document.tree import Patch
from collab.errors import (
    AmbiguousText,
    Conflict,
    InvalidRequest,
    Refused,
    TextNotFound,
    TooLarge,
)
from collab.protocol.structs import scan

# One byte to four in UTF-8, one unit or two in UTF-16, and characters that belong together.
CHARACTERS = "ab \nöß世界😀👩‍💻é\u0301🏳️‍🌈\ufffc𝒳"
texts = st.text(alphabet=CHARACTERS, max_size=20)


def document(make: Any = None, **roots: Any) -> Document:
    """A document with these roots."""
    doc: Doc[Any] = Doc(client_id=1)
    for name, root in roots.items():
        doc[name] = root
    if make is not None:
        make(doc)
    made = Document(max_update_bytes=1 << 24)
    made.apply(doc.get_update(), "ada")
    return made


def edited(before: Document, *operations: Operation, client: int = 7) -> dict[str, Any]:
    """What the document holds after these edits."""
    update = edit(before, client, operations)
    if update is not None:
        before.apply(update, "bob")
    return to_json(before.snapshot())


def patched(before: Document, *operations: dict[str, Any]) -> dict[str, Any]:
    return edited(before, *map(patch, operations))


def patch(operation: dict[str, Any]) -> Patch:
    named = dict(operation)
    return Patch(named["op"], named["path"], named.get("value"), named.get("from", ""))


# Splices


def test_a_splice_deletes_and_inserts_at_a_place() -> None:
    before = document(text=Text("hello world"))

    after = edited(before, Splice("text", 6, 5, "there"))

    assert after == {"text": "hello there"}


def test_splices_are_applied_one_after_the_other() -> None:
    before = document(text=Text("abc"))

    after = edited(before, Splice("text", 0, 1), Splice("text", 2, 0, "d"))

    assert after == {"text": "bcd"}


def test_a_splice_begins_a_text_that_is_not_there() -> None:
    assert edited(Document(), Splice("text", 0, 0, "first")) == {"text": "first"}


@pytest.mark.parametrize(
    ("index", "delete"), [(5, 0), (0, 5), (4, 1), (-1, 1), (2, -1)]
)
def test_a_splice_out_of_range_is_refused_and_leaves_nothing(
    index: int, delete: int
) -> None:
    before = document(text=Text("abc"))

    with pytest.raises(Conflict, match="operation 1"):
        edit(before, 7, [Splice("text", 0, 0, "x"), Splice("text", index, delete)])

    assert to_text(before.snapshot()) == "abc"


def test_nothing_to_change_is_no_update() -> None:
    before = document(text=Text("abc"))

    assert edit(before, 7, [Splice("text", 1), Rewrite("text", "abc")]) is None


@given(texts, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), texts)))
@settings(max_examples=200, deadline=None)
def test_splices_count_characters_as_python_does(
    text: str, splices: list[tuple[int, int, str]]
) -> None:
    before = document(text=Text(text))
    operations = []
    expected = text
    for index, delete, insert in splices:
        index = min(index, len(expected))
        delete = min(delete, len(expected) - index)
        operations.append(Splice("text", index, delete, insert))
        expected = expected[:index] + insert + expected[index + delete :]

    update = edit(before, 7, operations)
    if update is not None:
        before.apply(update, "bob")

    assert to_text(before.snapshot()) == expected


def test_what_is_no_character_counts_as_one() -> None:
    def with_image(doc: Doc[Any]) -> None:
        text = doc.get("text", type=Text)
        text.insert(0, "é😀b")
        text.insert_embed(6, {"image": "x.png"})

    before = document(with_image)

    after = edited(before, Splice("text", 3, 0, "-"), Splice("text", 4, 0, "!"))

    assert after == {"text": "é😀\ufffc-!b"}


def test_a_splice_can_say_how_its_text_is_formatted() -> None:
    before = document(text=Text("plain"))

    edited(before, Splice("text", 5, 0, "bold", {"bold": True}))

    assert pieces(before) == [("plain", None), ("bold", {"bold": True})]


def test_what_replaces_formatted_text_is_formatted_alike() -> None:
    def bold(doc: Doc[Any]) -> None:
        text = doc.get("text", type=Text)
        text.insert(0, "a ")
        text.insert(2, "word", {"bold": True})
        text.insert(6, " b", {})

    before = document(bold)

    edited(before, Replacement("text", "word", "other"))

    assert pieces(before) == [("a ", None), ("other", {"bold": True}), (" b", None)]


def pieces(document: Document) -> list[Any]:
    doc: Doc[Any] = Doc()
    doc.apply_update(document.snapshot())
    return [
        (piece, dict(formats) if formats else None)
        for piece, formats in doc.get("text", type=Text).diff()
    ]


def test_a_root_that_is_a_text_and_a_list_at_once_is_not_edited_as_a_text() -> None:
    made: Doc[Any] = Doc(client_id=1)
    made["root"] = Array([1, 2])
    other: Doc[Any] = Doc(client_id=2)
    other["root"] = Text("é")
    both = Document()
    both.apply(made.get_update(), "ada")
    both.apply(other.get_update(), "eve")

    with pytest.raises(Conflict, match="at once"):
        edit(both, 7, [Rewrite("root", "words")])


# Search and replace


def test_a_unique_text_is_replaced() -> None:
    before = document(text=Text("one two three"))

    assert edited(before, Replacement("text", "two", "2")) == {"text": "one 2 three"}


def test_only_the_middle_that_differs_is_changed() -> None:
    before = document(text=Text("the quick brown fox"))

    update = edit(before, 7, [Replacement("text", "quick brown", "quick, brown")])

    assert update is not None
    (run,) = scan(update).runs
    assert run.end - run.clock == 1
    assert not scan(update).deletes


def test_a_word_added_at_the_edge_meanwhile_survives_a_replacement() -> None:
    before = document(text=Text("the quick brown fox"))
    other = Draft(before.snapshot(), 8).edit([Splice("text", 9, 0, "est")])
    assert other is not None

    update = edit(before, 7, [Replacement("text", "quick brown", "quick red")])
    before.apply(other, "eve")
    assert update is not None
    before.apply(update, "bob")

    assert to_text(before.snapshot()) == "the quickest red fox"


def test_a_text_that_is_not_there_is_not_found() -> None:
    with pytest.raises(TextNotFound):
        edit(document(text=Text("abc")), 7, [Replacement("text", "x", "y")])


def test_a_text_that_is_there_twice_is_ambiguous_and_its_places_are_named() -> None:
    with pytest.raises(AmbiguousText, match="at 0, 3") as caught:
        edit(document(text=Text("ab ab")), 7, [Replacement("text", "ab", "y")])

    assert caught.value.positions == [0, 3]


def test_the_places_of_an_ambiguous_text_are_bounded() -> None:
    with pytest.raises(AmbiguousText) as caught:
        edit(document(text=Text("a" * 5000)), 7, [Replacement("text", "a", "y")])

    assert len(str(caught.value)) < 200


def test_overlapping_places_are_ambiguous_too() -> None:
    with pytest.raises(AmbiguousText, match="at 0, 1"):
        edit(document(text=Text("aaa")), 7, [Replacement("text", "aa", "y")])


def test_a_place_nearby_settles_which_one_is_meant() -> None:
    before = document(text=Text("ab 😀 ab"))

    assert edited(before, Replacement("text", "ab", "c", near=6)) == {"text": "ab 😀 c"}


# Whole texts


@given(texts, texts)
@settings(max_examples=200, deadline=None)
def test_a_rewrite_makes_a_text_say_just_that(old: str, new: str) -> None:
    before = document(text=Text(old))

    update = edit(before, 7, [Rewrite("text", new)])
    if update is not None:
        before.apply(update, "bob")

    assert to_text(before.snapshot()) == new


def test_a_rewrite_changes_only_the_words_that_differ() -> None:
    old = "".join(f"line {number}\n" for number in range(500))
    new = old.replace("line 17\n", "row 17\n").replace("line 400\n", "").strip("x")
    before = document(text=Text(old))

    update = edit(before, 7, [Rewrite("text", new)])

    assert update is not None
    assert sum(run.end - run.clock for run in scan(update).runs) <= 3
    assert sum(end - clock for _, clock, end in scan(update).deletes) <= 14


def test_a_rewrite_of_everything_is_one_change() -> None:
    before = document(text=Text("a b " * 20_000))

    update = edit(before, 7, [Rewrite("text", "c d " * 20_000)])

    assert update is not None
    assert len(scan(update).deletes) == 1


# JSON Patch


def test_a_patch_begins_roots_by_what_they_are_to_hold() -> None:
    after = patched(
        Document(),
        {"op": "add", "path": "/map", "value": {"a": 1}},
        {"op": "add", "path": "/list", "value": ["x"]},
        {"op": "add", "path": "/text", "value": "words"},
    )

    assert after == {"map": {"a": 1}, "list": ["x"], "text": "words"}


def test_a_key_of_a_root_that_is_not_there_makes_it_a_map_and_a_dash_a_list() -> None:
    after = patched(
        Document(),
        {"op": "add", "path": "/settings/theme", "value": "dark"},
        {"op": "add", "path": "/todos/-", "value": "write"},
    )

    assert after == {"settings": {"theme": "dark"}, "todos": ["write"]}


def test_a_number_does_not_say_what_an_empty_root_is() -> None:
    with pytest.raises(Conflict, match="empty"):
        patched(Document(), {"op": "add", "path": "/todos/0", "value": "write"})


def test_what_is_said_first_holds_for_the_rest_of_the_patch() -> None:
    after = patched(
        Document(),
        {"op": "add", "path": "/todos", "value": []},
        {"op": "add", "path": "/todos/0", "value": "write"},
    )

    assert after == {"todos": ["write"]}


def test_new_maps_and_lists_are_shared() -> None:
    before = document(map=Map({}))

    patched(before, {"op": "add", "path": "/map/a", "value": {"b": [1]}})
    one = edit(before, 8, [Patch("add", "/map/a/c", 1)])
    two = edit(before, 9, [Patch("add", "/map/a/b/-", 2)])
    for update in (one, two):
        assert update is not None
        before.apply(update, "x")

    assert to_json(before.snapshot()) == {"map": {"a": {"b": [1, 2], "c": 1}}}


def test_new_maps_beside_plain_ones_are_plain() -> None:
    before = document(todos=Array([{"title": "a"}]))

    patched(before, {"op": "add", "path": "/todos/-", "value": {"title": "b"}})

    doc: Doc[Any] = Doc()
    doc.apply_update(before.snapshot())
    assert list(doc.get("todos", type=Array)) == [{"title": "a"}, {"title": "b"}]


def test_a_change_inside_a_plain_value_keeps_it_plain() -> None:
    before = document(map=Map({"a": {"b": [1, {"c": 2}]}}))

    patched(before, {"op": "replace", "path": "/map/a/b/1/c", "value": 3})

    doc: Doc[Any] = Doc()
    doc.apply_update(before.snapshot())
    assert doc.get("map", type=Map)["a"] == {"b": [1, {"c": 3}]}


def test_a_replace_touches_only_what_differs() -> None:
    before = document(map=Map({"a": Map({"x": 1, "y": Array([1, 2, 3])}), "b": "same"}))

    update = edit(
        before,
        7,
        [Patch("replace", "/map", {"a": {"x": 1, "y": [1, 2.0, 4]}, "b": "same"})],
    )

    assert update is not None
    assert sum(run.end - run.clock for run in scan(update).runs) == 1


def test_a_replace_with_the_same_is_no_update() -> None:
    before = document(map=Map({"a": Map({"x": [1, {"z": None}], "t": True})}))

    value = {"x": [1, {"z": None}], "t": True}

    assert edit(before, 7, [Patch("replace", "/map/a", value)]) is None


def test_true_is_not_one() -> None:
    before = document(map=Map({"a": 1}))

    assert patched(before, {"op": "replace", "path": "/map/a", "value": True}) == {
        "map": {"a": True}
    }


def test_a_replaced_text_is_changed_word_by_word() -> None:
    before = document(map=Map({"note": Text("one two three")}))
    other = edit(before, 8, [Patch("replace", "/map/note", "zero one two three")])

    update = edit(before, 9, [Patch("replace", "/map/note", "one two 3")])
    for each in (other, update):
        assert each is not None
        before.apply(each, "x")

    assert to_json(before.snapshot()) == {"map": {"note": "zero one two 3"}}


def test_an_item_removed_from_the_front_leaves_the_others_as_they_are() -> None:
    before = document(list=Array([Map({"n": number}) for number in range(5)]))
    left = [{"n": number} for number in range(1, 5)]

    update = edit(before, 7, [Patch("replace", "/list", left)])

    assert update is not None
    assert not scan(update).runs


def test_a_root_is_emptied_rather_than_removed() -> None:
    before = document(map=Map({"a": 1}), list=Array([1]), text=Text("x"))

    after = patched(
        before,
        {"op": "remove", "path": "/map"},
        {"op": "remove", "path": "/list"},
        {"op": "remove", "path": "/text"},
    )

    assert after == {"map": None, "list": None, "text": None}


def test_all_or_nothing() -> None:
    before = document(map=Map({"a": 1}))

    with pytest.raises(Conflict, match="operation 1"):
        edit(
            before,
            7,
            [Patch("add", "/map/b", 2), Patch("test", "/map/a", 2)],
        )

    assert to_json(before.snapshot()) == {"map": {"a": 1}}


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        ({"op": "add", "path": "", "value": 1}, "path"),
        ({"op": "add", "path": "map/a", "value": 1}, "path"),
        ({"op": "add", "path": "/map/a~2", "value": 1}, "~"),
        ({"op": "add", "path": "/map/no/b", "value": 1}, "/map/no"),
        ({"op": "remove", "path": "/map/no"}, "/map/no"),
        ({"op": "remove", "path": "/nothing"}, "/nothing"),
        ({"op": "replace", "path": "/map/no", "value": 1}, "/map/no"),
        ({"op": "replace", "path": "/nothing", "value": {}}, "/nothing"),
        ({"op": "add", "path": "/list/4", "value": 1}, "end"),
        ({"op": "add", "path": "/list/01", "value": 1}, "index"),
        ({"op": "add", "path": "/list/-1", "value": 1}, "index"),
        ({"op": "add", "path": "/list/x", "value": 1}, "index"),
        ({"op": "add", "path": "/list/99999999999999999999", "value": 1}, "index"),
        ({"op": "replace", "path": "/list/-", "value": 1}, "index"),
        ({"op": "remove", "path": "/list/3"}, "end"),
        ({"op": "remove", "path": "/map/plain/x/1"}, "end"),
        ({"op": "add", "path": "/map/a/b", "value": 1}, "not a map"),
        ({"op": "add", "path": "/text/0", "value": "x"}, "not a map"),
        ({"op": "replace", "path": "/map", "value": []}, "stays"),
        ({"op": "add", "path": "/new", "value": 5}, "root"),
        ({"op": "move", "from": "/map", "path": "/map/x"}, "itself"),
        ({"op": "copy", "from": "/map/no", "path": "/map/x"}, "/map/no"),
        ({"op": "add", "path": "/map/a", "value": 1 << 53}, "exact"),
        ({"op": "add", "path": "/map/a", "value": float("nan")}, "finite"),
        ({"op": "add", "path": "/map/a", "value": "\ud83d"}, "surrogate"),
        ({"op": "add", "path": "/map/\ud83d", "value": 1}, "surrogate"),
        ({"op": "add", "path": "/\ud83d/a", "value": 1}, "surrogate"),
        ({"op": "add", "path": "/map/a", "value": {"\ud83d": 1}}, "surrogate"),
        ({"op": "add", "path": "/xml/a", "value": 1}, "not a map"),
        ({"op": "remove", "path": "/xml"}, "by path"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said(operation: dict[str, Any], says: str) -> None:
    before = document(
        map=Map({"a": 1, "plain": {"x": [1]}}),
        list=Array([1, 2, 3]),
        text=Text("t"),
        xml=XmlFragment([XmlElement("p")]),
    )

    with pytest.raises((InvalidRequest, Conflict), match=says) as caught:
        edit(before, 7, [Splice("text", 0), patch(operation)])

    assert "operation 1" in str(caught.value)


def test_a_value_nested_too_deep_never_reaches_native_code() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]

    with pytest.raises(InvalidRequest, match="deeper"):
        edit(document(map=Map({"a": 1})), 7, [Patch("add", "/map/b", value)])


@pytest.mark.parametrize("op", ["move", "copy"])
def test_a_text_that_is_moved_or_copied_keeps_its_formats_and_what_stands_in_it(
    op: Any,
) -> None:
    source: Doc[Any] = Doc()
    card = source.get("board", type=Map)["card"] = Map({"notes": Text("a bold äword")})
    notes = card["notes"]
    notes.format(2, 6, {"bold": True})
    notes.insert_embed(0, {"image": "cat.png"}, {"link": "x"})
    notes.insert_embed(3, Map({"mention": "Ada"}))
    draft = Draft(source.get_update(), client=7)

    draft.edit([Patch(op, "/board/done", source="/board/card")])

    copy = draft._doc.get("board", type=Map)["done"]["notes"]
    told = [
        (what.to_py() if isinstance(what, Map) else what, how or {})
        for what, how in copy.diff()
    ]
    assert told == [
        ({"image": "cat.png"}, {"link": "x"}),
        ("a ", {}),
        ({"mention": "Ada"}, {}),
        ("bold", {"bold": True}),
        (" äword", {}),
    ]


def test_a_moved_text_stays_a_text() -> None:
    before = document(map=Map({"note": Text("words")}))

    patched(before, {"op": "move", "from": "/map/note", "path": "/map/moved"})
    after = edited(before, Patch("replace", "/map/moved", "more words"))

    doc: Doc[Any] = Doc()
    doc.apply_update(before.snapshot())
    assert after == {"map": {"moved": "more words"}}
    assert isinstance(doc.get("map", type=Map)["moved"], Text)


def test_a_request_has_a_bound() -> None:
    with pytest.raises(TooLarge):
        edit(Document(), 7, [Splice("text", 0, 0, "x")] * (MAX_OPERATIONS + 1))


LARGE = {f"key{number}": number for number in range(2000)}


def many(operation: dict[str, Any], count: int = MAX_OPERATIONS) -> list[Operation]:
    return [patch(operation)] * count


@pytest.mark.parametrize(
    "operations",
    [
        [Splice("text", 0, 0, "x")] * 200,
        [Replacement("text", "y", "z"), Replacement("text", "z", "y")] * 100,
        [Replacement("text", "x", "x", near=0)] * 900,
        [Rewrite("text", "x z " * 9000), Rewrite("text", "y x " * 9000)] * 99,
        many({"op": "test", "path": "/map", "value": LARGE}),
        many({"op": "copy", "from": "/map", "path": "/map/again"}, 20),
        many({"op": "test", "path": "/list", "value": list(range(2000))}),
        many({"op": "replace", "path": "/list", "value": list(range(2000, 0, -1))}, 30),
        many({"op": "replace", "path": "/plain/a/0", "value": 0}),
        many({"op": "add", "path": "/map/new", "value": [[1] * 50] * 50}, 100),
    ],
    ids=lambda operations: str(operations[0])[:60],
)
def test_the_work_of_a_request_has_a_bound(operations: list[Operation]) -> None:
    before = document(
        text=Text("x " * 100_000 + "y"),
        map=Map(LARGE),
        list=Array(list(range(2000))),
        plain=Map({"a": list(range(5000))}),
    )
    began = time.process_time()

    with pytest.raises(TooLarge):
        edit(before, 7, operations)

    assert time.process_time() - began < 3


# Compared with RFC 6902 on plain values

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from([0.5, "", "x", "é😀"])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from("abc~/"), inner, max_size=3),
    ),
    max_leaves=6,
)
steps = st.tuples(
    st.sampled_from(["add", "remove", "replace", "move", "copy"]),
    st.integers(0, 1 << 30),
    st.integers(0, 1 << 30),
    values,
)


@given(
    st.dictionaries(st.sampled_from("abc"), values, min_size=1, max_size=3),
    st.lists(steps, max_size=6),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_a_patch_does_what_it_does_to_plain_values(
    start: dict[str, Any], walk: list[Any], is_shared: bool
) -> None:
    made: Any = Patch("add", "/root", start) if is_shared else None
    before = document(root=Map(start)) if made is None else Document()
    if made is not None:
        update = edit(before, 6, [made])
        assert update is not None
        before.apply(update, "x")
    model: Any = {"root": copy.deepcopy(start)}
    operations = []
    for op, one, two, value in walk:
        operation = choose(model, op, one, two, value)
        if operation is not None:
            operations.append(operation)

    after = patched(before, *operations)

    assert (after["root"] or {}) == model["root"]


def choose(
    model: Any, op: str, one: int, two: int, value: Any
) -> dict[str, Any] | None:
    """Make a valid operation of some numbers, and apply it to the model."""
    places = [path for path in paths(model) if len(path) > 1]
    holders = [
        path
        for path in paths(model)
        if path and isinstance(at(model, path), dict | list)
    ]
    target = holders[one % len(holders)]
    holder = at(model, target)
    if op in ("remove", "replace"):
        if not places:
            return None
        path = places[one % len(places)]
        take(model, path)
        if op == "replace":
            put(model, path, value)
            return {"op": op, "path": pointer(path), "value": value}
        return {"op": op, "path": pointer(path)}
    if op in ("move", "copy"):
        if not places:
            return None
        source = places[two % len(places)]
        if op == "move" and target[: len(source)] == source:
            return None
        value = copy.deepcopy(at(model, source))
        if op == "move":
            if isinstance(holder, list) and source[:-1] == target:
                return None
            if any(isinstance(part, int) for part in target):
                return None  # an index may have moved
            take(model, source)
    key: Any = two % (len(holder) + 1) if isinstance(holder, list) else "abc~/"[two % 5]
    path = (*target, key)
    put(model, path, value)
    if op == "add":
        return {"op": op, "path": pointer(path), "value": value}
    return {"op": op, "from": pointer(source), "path": pointer(path)}


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    yield path
    items: Iterable[Any] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from paths(item, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def take(model: Any, path: tuple[Any, ...]) -> None:
    del at(model, path[:-1])[path[-1]]


def put(model: Any, path: tuple[Any, ...], value: Any) -> None:
    holder = at(model, path[:-1])
    value = copy.deepcopy(value)
    if isinstance(holder, list):
        holder.insert(path[-1], value)
    else:
        holder[path[-1]] = value


def pointer(path: tuple[Any, ...]) -> str:
    return "".join(
        "/" + str(part).replace("~", "~0").replace("/", "~1") for part in path
    )


def test_a_list_that_native_code_cannot_read_is_refused() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc["map"] = Map({"k": Text("a😀")})
    made = doc.get_update()
    at = made.index(b"\x01k") + 2
    hostile = Document()
    hostile.apply(made[:at] + b"\x00" + made[at + 1 :], "eve")

    with pytest.raises(Refused, match="characters in a list"):
        edit(hostile, 7, [Patch("test", "/map/k/0", 1)])
    with pytest.raises(Refused, match="characters in a list"):
        to_json(hostile.snapshot())
    assert edit(hostile, 7, [Splice("text", 0, 0, "x")]) is not None


def test_a_document_that_takes_too_long_to_copy_is_not_edited() -> None:
    crafted = Document(clock=lambda: 0.0)
    crafted.apply(plain(2000), "ada")
    crafted.apply(before_each(2000), "eve")

    with pytest.raises(TooLarge, match="too costly"):
        Draft(crafted.snapshot(), 1, clock=slow())


def test_a_document_that_was_quick_to_copy_is_copied_in_one_go() -> None:
    crafted = Document(clock=lambda: 0.0)
    crafted.apply(plain(2000), "ada")
    crafted.apply(before_each(2000), "eve")

    draft = Draft(crafted.snapshot(), 1, is_proven=True, clock=slow())

    assert draft.edit([Splice("text", 0, insert="y")]) is not None
