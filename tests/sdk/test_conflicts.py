"""Edits held against what was read, while somebody else edits too."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from alone import Other, alone
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.sdk.doc import Doc
from collab.sdk.edits import EditResult
from collab.sdk.errors import SdkError, StaleVersion
from collab.sdk.reading import Reading
from collab.sdk.turn import Turn

WORDS = [
    "".join(chr(0x100 + 16 * word + letter) for letter in range(size))
    for word, size in enumerate([3, 1, 5, 4, 2, 6])
]
TEXT = " ".join(WORDS)  # in which each letter is there once
STARTS = [TEXT.index(word) for word in WORDS]
NEW = st.sampled_from(["", "x", "xyz", "two words", WORDS[2][:2], "👩‍👩‍👧"])


@st.composite
def human(draw: st.DrawFn) -> list[tuple[str, int, Any]]:
    """What somebody does: places are taken as shares of the text as it is by then."""
    steps = []
    for number in range(draw(st.integers(0, 4))):
        letter = chr(0x4E00 + number)  # only they write these
        place = draw(st.integers(0, 1000))
        if draw(st.booleans()):
            new = draw(
                st.sampled_from([letter, f" {letter}", f"{letter} ", f" {letter} "])
            )
            steps.append(("type", place, new))
        else:
            steps.append(("erase", place, draw(st.integers(1, 4))))
    return steps


def play(other: Other, steps: list[tuple[str, int, Any]]) -> None:
    for kind, share, what in steps:
        length = len(other.shown)
        at = share * length // 1000
        if kind == "type":
            other.type(at, what)
        else:
            other.erase(at, min(at + what, length))


def touched(before: str, after: str, word: int) -> str:
    """Whether somebody has been in a word: "inside", "beside" it, or not there at all: ""."""
    letters = WORDS[word]
    start = STARTS[word]
    present = [letter for letter in letters if letter in after]
    if len(present) < len(letters):
        return "inside"
    first, last = after.index(letters[0]), after.index(letters[-1])
    if after[first : last + 1] != letters:
        return "inside"
    left = after[first - 1] if first else ""
    right = after[last + 1 : last + 2]
    neighbours = (
        before[start - 1] if start else "",
        before[start + len(letters) :][:1],
    )
    if max(left, right) >= "\u4e00":
        return "glued"
    return "" if (left, right) == neighbours else "beside"


async def edit(
    doc: Doc, reading: Any, how: str, word: int, new: str, policy: str
) -> EditResult:
    match = reading.match(STARTS[word], len(WORDS[word]))
    async with doc.turn(on_conflict=policy) as turn:
        match how:
            case "match":
                return await turn.replace(match, new)
            case "text":
                return await turn.replace(WORDS[word], new)
            case "rewrite":
                text = (
                    TEXT[: STARTS[word]] + new + TEXT[STARTS[word] + len(WORDS[word]) :]
                )
                return await turn.rewrite(text, force=True)
            case "patch":
                lines = [TEXT, TEXT.replace(WORDS[word], new)]
                return await turn.patch(f"@@\n-{lines[0]}\n+{lines[1]}\n")
    raise AssertionError(how)


@settings(max_examples=150)
@given(
    human(),
    st.sampled_from(["match", "text", "rewrite", "patch"]),
    st.integers(0, len(WORDS) - 1),
    NEW,
    st.integers(1, 1 << 30),
)
def test_a_race_of_a_person_and_an_agent(
    steps: list[tuple[str, int, Any]], how: str, word: int, new: str, client: int
) -> None:
    results: dict[str, Any] = {}
    for policy in ("merge", "reject"):
        doc = alone(TEXT)
        reading = doc.read()
        other = Other(doc, client)
        play(other, steps)
        before = doc.text
        try:
            results[policy] = asyncio.run(edit(doc, reading, how, word, new, policy))
        except SdkError as error:
            results[policy] = error
        after = doc.text
        other.hear()

        assert other.shown == after
        if policy == "reject":
            is_stale = isinstance(results["reject"], StaleVersion)
            assert is_stale == bool(results["merge"].conflict)
            assert not is_stale or after == before
            continue
        told = "".join(each.text for each in results["merge"].conflict)
        where = touched(TEXT, before, word)
        assert where not in ("inside", "glued") or results["merge"].conflict
        assert where or not results["merge"].conflict
        for letter in before:  # theirs stays, or we are told
            assert letter < "\u4e00" or letter in after or letter in told
        for number, others in enumerate(WORDS):  # and so does what nobody touched
            assert number == word or others not in before or others in after


LETTER = (
    "The quick fox. Ein Wörtchen 😀 hier.\n\n# A\n\ntext of a\n\n# B\n\ntext of b\n"
)


def disturb(other: Other, chance: random.Random, letter: str) -> None:
    """Somebody types a letter of their own, or deletes something."""
    other.hear()
    at = chance.randint(0, len(other.shown))
    if chance.random() < 0.6:
        other.type(at, chance.choice([letter, f" {letter} ", f"{letter} "]))
    else:
        other.erase(at, min(at + chance.randint(0, 8), len(other.shown)))


async def attempt(turn: Turn, reading: Reading, chance: random.Random) -> EditResult:
    """Some edit of what was read."""
    text = reading.text
    start = chance.randint(0, len(text))
    stop = min(len(text), start + chance.randint(1, 10))
    match chance.choice(["replace", "delete", "insert", "rewrite", "section", "patch"]):
        case "replace":
            new = chance.choice(["x", "new words", text[start:stop].upper()])
            return await turn.replace(reading.match(start, stop - start), new)
        case "delete":
            return await turn.delete(reading.match(start, stop - start))
        case "insert":
            return await turn.insert(reading.at(start), " yes ")
        case "rewrite":
            return await turn.rewrite(f"{text[:start]}so{text[stop:]}", force=True)
        case "section":
            return await turn.section(chance.choice("AB")).replace("text of both")
        case _:
            line = chance.choice(text.split("\n"))
            return await turn.patch(f"@@\n-{line}\n+{line.replace('e', 'E')}!\n")


@settings(max_examples=100)
@given(st.randoms(use_true_random=False), st.integers(1, 1 << 30))
def test_many_edits_of_both(chance: random.Random, client: int) -> None:
    doc = alone(LETTER)
    other = Other(doc, client)

    async def race() -> None:
        readings = [doc.read()]
        async with doc.turn() as turn:
            for step in range(chance.randint(1, 12)):
                if chance.random() < 0.5:
                    disturb(other, chance, chr(0x4E00 + step))
                    continue
                if chance.random() < 0.2:
                    readings.append(doc.read())
                reading = chance.choice(readings)
                before = doc.text
                try:
                    result = await attempt(turn, reading, chance)
                except SdkError:
                    assert doc.text == before
                    continue
                known = "".join(each.text for each in readings)
                told = "".join(each.text for each in result.conflict)
                gone = {each for each in before if "\u4e00" <= each < "\u9fff"}
                assert gone - set(doc.text) <= set(known + told)
                other.hear()
                assert other.shown == doc.text

    asyncio.run(race())
