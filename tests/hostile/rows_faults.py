"""F: members that stop listening, vanish without a word, or come back with all they ever said."""

from __future__ import annotations

from catalogue import Field, counted, story
from peer import DIALECTS, WEBSOCKET
from rows_presence import known
from wire import awareness, frame, insertion, keystroke, update_of

BEAT_SECONDS = 12  # in which the server looks at every socket once


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

    await field.grows("collab_slow_closes_total", before, 10)
    await reader.until(lambda: len(reader.updates()) >= 100)
    assert await author.document()


@story(
    "F25",
    "members whose machine has stopped, one of each dialect",
    dialects=(WEBSOCKET,),
    house="hurried",
    lines=(3,),
    counter="closes",
)
async def half_open(field: Field) -> None:
    """The server looks at each socket every twelve seconds, so all three share the waiting."""
    pairs = []
    for dialect in DIALECTS:
        silent = await field.join(dialect, field.room + dialect.name)
        witness = await field.join(dialect, field.room + dialect.name)
        silent.say(awareness((70, 1, "{}")))
        await witness.until(lambda witness=witness: 70 in known(witness))
        pairs.append((silent, witness))

    for silent, _ in pairs:
        silent.is_mute = True
        silent.stop_reading()

    for _, witness in pairs:
        await witness.until(
            lambda witness=witness: known(witness)[70] == b"null", 2 * BEAT_SECONDS + 3
        )


@story(
    "W6",
    "messages that never end, one of each dialect",
    dialects=(WEBSOCKET,),
    house="hurried",
    lines=(3,),
    counter="closes",
)
async def endless_messages(field: Field) -> None:
    endless = [await field.join(dialect) for dialect in DIALECTS]

    for peer in endless:
        peer.write(frame(b"x", fin=False))
        peer.is_mute = True

    for peer in endless:
        assert await peer.closed(2 * BEAT_SECONDS + 3) in (1006, 4408)


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


ROWS = [slow_member, half_open, endless_messages, replay]
