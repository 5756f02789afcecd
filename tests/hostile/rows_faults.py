"""F: members that stop listening, vanish without a word, or come back with all they ever said."""

from __future__ import annotations

import asyncio
import time

from catalogue import Field, counted, story
from rows_presence import known
from wire import awareness, insertion, keystroke, update_of


async def _grows(
    field: Field, name: str, before: dict[str, float], seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while (await field.house.counters()).get(name, 0) <= before.get(name, 0):
        assert time.monotonic() < deadline, f"{name} has not grown"
        await asyncio.sleep(0.05)


@story(
    "F24",
    "a member that does not read",
    house="hurried",
    lines=(1,),
    counter=counted(1013),
)
async def slow_member(field: Field) -> None:
    before = await field.house.counters()
    author, reader = await field.join(), await field.join()
    deaf = await field.join(receive_buffer=4096)
    deaf.stop_reading()

    for at in range(100):
        author.say(update_of(insertion(100 + at, 0, "x" * 65_000)))
        if at % 10 == 9:
            await author.document()

    await _grows(field, "collab_slow_closes_total", before, 10)
    await reader.until(lambda: len(reader.updates()) >= 100)
    assert await author.document()


@story("F25", "a member whose machine has stopped", house="hurried", lines=(0, 1))
async def half_open(field: Field) -> None:
    silent, witness = await field.join(), await field.join()
    silent.say(awareness((70, 1, "{}")))
    await witness.until(lambda: 70 in known(witness))

    silent.is_mute = True
    silent.stop_reading()

    await witness.until(lambda: known(witness)[70] == b"null", 10)


@story(
    "F27",
    "all that was ever said, once more",
    counter="collab_repeats_total",
    lines=(0,),
)
async def replay(field: Field) -> None:
    author, witness = await field.join(), await field.join()
    history = [keystroke(9, clock, "x") for clock in range(50)]
    for update in history:
        author.say(update_of(update))
    await witness.until(lambda: len(witness.updates()) >= 50)
    before, beside = await field.house.counters(), field.pair.sent

    for _ in range(4):
        for update in history:
            author.say(update_of(update))
    await author.document()

    after = await field.house.counters()
    beside = field.pair.sent - beside
    assert after["collab_updates_total"] - before["collab_updates_total"] <= beside + 2
    assert len(witness.updates()) == 50


ROWS = [slow_member, half_open, replay]
