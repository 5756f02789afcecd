"""One live document: what changed, what is logged, who owns what, and what native code may do wrong."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from costly import before_each, plain, slow
from pycrdt import Doc, Text, merge_updates

from collab.document.document import (
    NOTHING,
    Binding,
    Change,
    Document,
    TooCostly,
)
from collab.errors import ClientIdConflict, DocumentBroken, Refused, TooLarge
from collab.protocol.division import LONG_BYTES
from collab.protocol.statevector import encode_state_vector
from collab.protocol.structs import scan
from collab.protocol.varint import encode_varint


class Writer:
    """A client: a document of its own and the updates it makes."""

    def __init__(self) -> None:
        self.doc: Doc = Doc()
        self.text = self.doc.get("text", type=Text)
        self.updates: list[bytes] = []
        self.doc.observe(lambda event: self.updates.append(event.update))

    def write(self, *words: str) -> list[bytes]:
        start = len(self.updates)
        for word in words:
            self.text.insert(len(str(self.text).encode()), word)
        return self.updates[start:]

    def erase(self, start: int, stop: int) -> bytes:
        del self.text[start:stop]
        return self.updates[-1]


def apply_all(document: Document, updates: list[bytes]) -> None:
    for update in updates:
        document.apply(update, "ada")


def read(document: Document) -> str:
    doc: Doc = Doc()
    doc.apply_update(document.snapshot())
    return str(doc.get("text", type=Text))


def test_an_update_is_forwarded_and_logged_as_it_came() -> None:
    document = Document()
    (update,) = Writer().write("a")

    change = document.apply(update, "ada")

    assert change is update
    assert read(document) == "a"


def test_a_repeat_changes_nothing() -> None:
    document = Document()
    (update,) = Writer().write("a")
    document.apply(update, "ada")

    assert document.apply(update, "ada") is None


def test_a_deletion_changes_something_though_the_vector_stays() -> None:
    document, writer = Document(), Writer()
    document.apply(*writer.write("abc"), "ada")
    before = document.state_vector()

    erased = writer.erase(0, 1)
    change = document.apply(erased, "ada")

    assert change is erased
    assert document.state_vector() == before
    assert read(document) == "bc"


def test_a_repeated_deletion_changes_nothing() -> None:
    document, writer = Document(), Writer()
    document.apply(*writer.write("abc"), "ada")
    erased = writer.erase(0, 1)
    document.apply(erased, "ada")

    assert document.apply(erased, "ada") is None


def test_a_precise_apply_forwards_only_what_is_new() -> None:
    document, writer = Document(), Writer()
    first, second = writer.write("hello ", "world")
    document.apply(first, "ada")

    change = document.apply(writer.doc.get_update(), "ada", precise=True)

    assert isinstance(change, Change)
    assert len(change.forward) == 1
    assert len(change.forward[0]) < len(writer.doc.get_update())
    assert read(document) == "hello world"
    assert second


def test_what_waits_is_logged_raw_and_forwarded_when_it_can_be_applied() -> None:
    document, writer = Document(), Writer()
    first, second = writer.write("a", "b")

    early = document.apply(second, "ada")
    late = document.apply(first, "ada")

    assert early == ((), second)
    assert isinstance(late, Change)
    assert late.log == first
    assert len(late.forward) == 2
    assert read(document) == "ab"


def test_what_waits_already_is_not_logged_again() -> None:
    document, writer = Document(), Writer()
    _, second = writer.write("a", "b")
    document.apply(second, "ada")

    assert document.apply(second, "ada") is None


def test_the_stash_is_bounded() -> None:
    document, writer = Document(max_stash_bytes=1000), Writer()
    updates = writer.write(*("word" * 20 for _ in range(50)))

    with pytest.raises(TooLarge, match="stash"):
        apply_all(document, updates[1:])


def test_a_loaded_document_equals_the_one_that_wrote_the_log() -> None:
    document, writer = Document(), Writer()
    updates = writer.write("one ", "two ", "three")
    for update in updates:
        document.apply(update, "ada")

    loaded = Document.load(None, reversed(updates))

    assert read(loaded) == read(document)
    assert loaded.state_vector() == document.state_vector()


def test_a_document_is_loaded_from_a_snapshot_and_a_tail() -> None:
    writer = Writer()
    updates = writer.write("one ", "two ", "three")
    first: Doc = Doc()
    first.apply_update(updates[0])

    loaded = Document.load(first.get_update(), updates[1:])

    assert read(loaded) == "one two three"


def test_a_log_is_loaded_whatever_the_limit_on_what_waits() -> None:
    writer = Writer()
    updates = writer.write(*("word" * 20 for _ in range(50)))

    loaded = Document.load(None, updates[1:], max_stash_bytes=1000)

    assert len(loaded.gate) == 49
    assert loaded.gate.max_bytes == 1000


def test_the_tail_of_a_client_is_what_it_wrote_last() -> None:
    document, writer = Document(), Writer()
    apply_all(document, writer.write("abc", "def"))

    short = document.tail(writer.doc.client_id, 2)
    whole = document.tail(writer.doc.client_id, 1000)

    assert short is not None
    assert b"ef" in short
    assert b"d" not in short
    assert whole == document.snapshot()
    assert document.tail(7, 2) is None


def test_the_snapshot_is_kept_until_the_next_change() -> None:
    document, writer = Document(), Writer()
    document.apply(*writer.write("a"), "ada")
    first = document.snapshot()

    again = document.snapshot()
    document.apply(*writer.write("b"), "ada")

    assert again is first
    assert document.snapshot() != first


def test_a_diff_brings_a_peer_up_to_date() -> None:
    document, writer, peer = Document(), Writer(), Doc()
    first, second = writer.write("a", "b")
    document.apply(first, "ada")
    peer.apply_update(document.diff(peer.get_state()))
    document.apply(second, "ada")

    peer.apply_update(document.diff(peer.get_state()))

    assert str(peer.get("text", type=Text)) == "ab"


def test_the_tail_of_a_client_is_what_it_inserted_last() -> None:
    document, writer = Document(), Writer()
    for update in writer.write("abc", "de"):
        document.apply(update, "ada")
    client = next(iter(document.gate.known))

    tail = document.tail(client, 2)

    assert tail is not None
    assert [(run.clock, run.end) for run in scan(tail).runs] == [(3, 5)]


def test_a_client_that_inserted_nothing_has_no_tail() -> None:
    assert Document().tail(7, 100) is None


@pytest.mark.parametrize(
    "vector", [b"", b"\x01", b"\x01\x05", b"\x80\x80\x80\x80\x01", b"\x00\x00"]
)
def test_a_bad_state_vector_is_refused(vector: bytes) -> None:
    with pytest.raises(Refused):
        Document().diff(vector)


def test_new_content_under_anothers_client_id_is_counted_in_audit() -> None:
    document, writer = Document(binding="audit"), Writer()
    first, second = writer.write("a", "b")
    document.apply(first, "ada")

    document.apply(second, "eve")

    assert document.conflicts == 1
    assert read(document) == "ab"


def test_new_content_under_anothers_client_id_is_refused_in_enforce() -> None:
    document, writer = Document(binding="enforce"), Writer()
    first, second = writer.write("a", "b")
    document.apply(first, "ada")

    with pytest.raises(ClientIdConflict):
        document.apply(second, "eve")

    assert read(document) == "a"


def test_known_content_may_come_from_anybody_in_enforce() -> None:
    document, writer = Document(binding="enforce"), Writer()
    (first,) = writer.write("a")
    document.apply(first, "ada")

    assert document.apply(writer.doc.get_update(), "eve", precise=True) is None


class Copy(Writer):
    """A client with the id of another one, and what it had by then."""

    def __init__(self, original: Writer) -> None:
        self.doc = Doc(client_id=original.doc.client_id)
        self.doc.apply_update(original.doc.get_update())
        self.text = self.doc.get("text", type=Text)
        self.updates = []
        self.doc.observe(lambda event: self.updates.append(event.update))


@pytest.mark.parametrize("principal", ["ada", "eve"])
@pytest.mark.parametrize("binding", ["off", "audit", "enforce"])
def test_what_a_copied_client_writes_at_ids_that_are_used_is_refused(
    binding: Binding, principal: str
) -> None:
    document, writer = Document(binding=binding), Writer()
    apply_all(document, writer.write("common"))
    copy = Copy(writer)
    apply_all(document, writer.write(" mine"))

    (shorter, longer) = (*copy.write(" its"), copy.doc.get_update())
    for update in (shorter, longer):
        for precise in (False, True):
            with pytest.raises(ClientIdConflict):
                document.apply(update, principal, precise=precise)

    assert document.copies == 4
    assert read(document) == "common mine"


def test_where_a_copy_was_seen_the_owner_of_the_id_alone_may_go_on() -> None:
    document, writer = Document(binding="audit"), Writer()
    apply_all(document, writer.write("common"))
    copy = Copy(writer)
    apply_all(document, writer.write(" mine"))
    (first,) = copy.write(" its own")
    with pytest.raises(ClientIdConflict):
        document.apply(first, "eve")

    beyond = copy.doc.get_update(document.state_vector())
    with pytest.raises(ClientIdConflict):
        document.apply(beyond, "eve", precise=True)
    apply_all(document, writer.write("!"))

    assert read(document) == "common mine!"


def test_a_copy_is_refused_also_where_a_part_of_its_update_must_wait() -> None:
    document, writer, other = Document(), Writer(), Writer()
    apply_all(document, writer.write("common"))
    copy = Copy(writer)
    apply_all(document, writer.write(" mine"))
    copy.write(" its")
    other.write("unknown here")
    copy.doc.apply_update(other.doc.get_update())
    copy.text.insert(len(str(copy.text)), "!")

    with pytest.raises(ClientIdConflict):
        document.apply(merge_updates(*copy.updates[:1], copy.updates[-1]), "ada")

    assert len(document.gate) == 0


def test_a_copy_that_another_replica_has_let_in_is_counted_and_ends_there() -> None:
    document, writer = Document(binding="audit"), Writer()
    apply_all(document, writer.write("common"))
    copy = Copy(writer)
    apply_all(document, writer.write(" mine"))
    its, more = copy.write(" its", " and so on")

    document.merge(its, "")
    document.merge(writer.doc.get_update(), "")

    assert document.copies == 1
    with pytest.raises(ClientIdConflict):
        document.apply(more, "eve")
    apply_all(document, writer.write("!"))
    assert read(document) == "common mine!"


def test_what_the_server_lost_is_no_copy_when_it_comes_again() -> None:
    document, writer = Document(), Writer()
    updates = writer.write("kept", " lost", " too", " new")
    apply_all(document, updates[:1])

    apply_all(document, updates[1:2])
    apply_all(document, [merge_updates(*updates[:3]), writer.doc.get_update()])

    assert read(document) == "kept lost too new"
    assert document.copies == 0


def test_a_repeat_may_cut_a_surrogate_pair() -> None:
    document, writer = Document(), Writer()
    apply_all(document, writer.write("a😀b"))
    client = writer.doc.client_id
    halves = [writer.doc.get_update(encode_state_vector({client: at})) for at in (1, 3)]

    assert [document.apply(half, "ada") for half in halves] == [None, None]

    crafted = bytes((1, 1, *encode_varint(client), 2, 0x84, *encode_varint(client), 1))
    document.apply(crafted + b"\x01x\x00", "ada")

    assert document.copies == 0


def test_an_anonymous_owner_is_forgotten_with_its_connection() -> None:
    document, writer = Document(binding="enforce"), Writer()
    first, second = writer.write("a", "b")
    document.apply(first, "anonymous:1")
    document.release("anonymous:1")

    document.apply(second, "anonymous:2")

    assert read(document) == "ab"
    assert document.claimed == {}


def test_an_update_over_the_limit_is_refused() -> None:
    document = Document(max_update_bytes=1024)

    with pytest.raises(TooLarge):
        document.apply(*Writer().write("x" * 2000), "ada")


def test_a_document_over_the_limit_takes_no_more() -> None:
    document, writer = Document(max_document_bytes=2000), Writer()

    updates = writer.write(*("x" * 500 for _ in range(10)))

    with pytest.raises(TooLarge, match="document"):
        apply_all(document, updates)

    assert len(document.snapshot()) <= 2000


def test_a_limit_on_the_document_counts_what_is_left_of_it() -> None:
    document, writer = Document(max_document_bytes=2000), Writer()

    for _ in range(20):
        document.apply(*writer.write("x" * 500), "ada")
        document.apply(writer.erase(0, 500), "ada")

    assert len(document.snapshot()) < 1000


def test_a_panic_in_native_code_breaks_the_document_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Panic(BaseException):
        """As `pyo3_runtime.PanicException`."""

    document = Document()
    (update,) = Writer().write("a")

    class Native:
        def create_transaction(self) -> None:
            raise Panic

    monkeypatch.setattr(document, "_native", Native())

    with pytest.raises(DocumentBroken):
        document.apply(update, "ada")


def test_an_update_that_went_in_by_halves_breaks_the_document(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document, writer = Document(), Writer()
    (update,) = writer.write("a")
    inner = document._native

    class Native:
        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

        def apply_update(self, transaction: object, update: bytes) -> None:
            inner.apply_update(transaction, update)  # type: ignore[arg-type]
            raise RuntimeError("block parent must be deleted or shared ref type")

    monkeypatch.setattr(document, "_native", Native())

    with pytest.raises(DocumentBroken):
        document.apply(update, "ada")


def test_the_canary_corrects_the_gate() -> None:
    document, writer = Document(), Writer()
    document.apply(*writer.write("a"), "ada")
    document.gate.known[7] = 3
    document._until_canary = 1

    document.apply(*writer.write("b"), "ada")

    assert document.mismatches == 1
    assert 7 not in document.gate.known


def test_pycrdt_has_the_native_calls_that_the_document_uses() -> None:
    seen: list[bytes] = []
    (update,) = Writer().write("a")
    native = Doc()._doc
    subscription = native.observe(lambda event: seen.append(event.update))

    transaction = native.create_transaction()
    native.apply_update(transaction, update)
    transaction.commit()
    transaction.drop()
    subscription.drop()
    transaction = native.create_transaction()
    native.apply_update(transaction, update)
    transaction.commit()
    transaction.drop()

    assert seen == [update]


def test_a_failed_native_call_leaves_no_transaction_behind() -> None:
    document, writer = Document(), Writer()
    with pytest.raises(Refused):
        document._integrate(b"\x01\x02\x03")

    document.apply(*writer.write("a"), "ada")

    assert read(document) == "a"


def test_documents_and_observers_leave_no_memory_behind() -> None:
    writer = Writer()
    updates = writer.write("x" * 20_000)
    updates.append(writer.erase(0, 10_000))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def live_once() -> None:
        document = Document()
        for update in updates:
            document.apply(update, "ada", precise=True)

    for _ in range(100):
        live_once()
    before = resident()
    for _ in range(1000):
        live_once()

    assert resident() - before < 8 << 20


# From other replicas


def test_what_another_replica_let_in_is_taken_in_and_known_by_its_owner() -> None:
    document, ada = Document(), Writer()
    (update,) = ada.write("x")

    changes = document.merge(update, "ada")

    assert changes == [update]
    assert document.owners == {ada.doc.client_id: "ada"}


def test_limits_and_binding_were_asked_where_it_was_let_in() -> None:
    document = Document(binding="enforce", max_update_bytes=1, max_document_bytes=1)
    ada = Writer()
    one, two = ada.write("x", "y")
    document.merge(one, "ada")

    document.merge(two, "eve")

    assert document.conflicts == 0
    assert document.owners == {ada.doc.client_id: "ada"}


def test_what_comes_too_early_waits_and_comes_out_with_what_it_waited_for() -> None:
    document, ada = Document(), Writer()
    one, two = ada.write("x", "y")

    early = document.merge(two, "ada")
    then = document.merge(one, "ada")

    assert early == []
    assert len(then) == 2
    assert len(document.gate) == 0


def test_documents_with_the_same_deletions_have_the_same_hash() -> None:
    one, other, ada = Document(), Document(), Writer()
    first, second = ada.write("abc", "def")
    gone, gone_too = ada.erase(0, 1), ada.erase(3, 4)
    for update in (first, second, gone, gone_too):
        one.merge(update, "")
    for update in (first, second, gone_too, gone, gone):
        other.merge(update, "")
    before = Document()
    before.merge(first, "")
    before.merge(second, "")

    assert one.deletes() == other.deletes()
    assert one.deletes() != before.deletes()


# What takes too long


def test_what_takes_out_of_proportion_long_is_refused_and_a_part_of_it_kept() -> None:
    document = Document(clock=slow())
    document.apply(plain(1000), "ada")

    with pytest.raises(TooCostly, match="too costly") as refusal:
        document.apply(before_each(1000), "eve")

    kept = refusal.value.kept
    assert kept.forward == (kept.log,)
    assert 100 < len(read(document)) - 1000 < 900
    again = Document.load(None, [plain(1000), kept.log])
    assert again.snapshot() == document.snapshot()
    assert again.state_vector() == document.state_vector()


def test_a_document_goes_on_after_a_refusal_of_that_kind() -> None:
    document, ada = Document(clock=slow()), Writer()
    document.apply(plain(1000), "ada")
    with pytest.raises(TooCostly):
        document.apply(before_each(1000), "eve")
    length = len(read(document))

    apply_all(document, ada.write("b", "c"))

    assert len(read(document)) == length + 2


def test_what_waited_for_the_part_that_is_kept_goes_in_with_it() -> None:
    document = Document(clock=slow())
    document.apply(plain(1000), "ada")
    waiting = b"\x01\x01\x07\x00\x84" + encode_varint(200) + b"\x00\x01b\x00"
    document.apply(waiting, "bob")

    with pytest.raises(TooCostly) as refusal:
        document.apply(before_each(1000), "eve")

    kept = refusal.value.kept
    other = Document.load(plain(1000), kept.forward)
    assert read(document).count("b") == 1
    assert read(other) == read(document)
    again = Document.load(None, [plain(1000), waiting, kept.log])
    assert again.state_vector() == document.state_vector()


def test_of_a_long_answer_only_what_it_brought_is_logged() -> None:
    document, ada = Document(), Writer()
    apply_all(document, ada.write("ab" * 2000))
    for at in range(1, 2000):
        document.apply(ada.erase(at, at + 1), "ada")
    before = len(ada.updates)
    ada.write("new")
    ada.erase(0, 1)
    answer = ada.doc.get_update(document.state_vector())

    change = document.apply(answer, "ada", precise=True)

    assert isinstance(change, Change)
    assert len(scan(answer).deletes) > 1900
    assert len(change.log) < 100
    again = Document.load(None, [*ada.updates[:before], change.log])
    assert again.snapshot() == document.snapshot() == ada.doc.get_update()


def test_a_long_answer_to_an_empty_document_that_somebody_has_joined_is_logged() -> (
    None
):
    document, ada = Document(), Writer()
    assert document.snapshot() == NOTHING
    doc = ada.doc
    with doc.transaction():
        for number in range(20_000):
            ada.text.insert(0, str(number % 10))
    answer = doc.get_update()

    change = document.apply(answer, "ada", precise=True)

    log = change.log if isinstance(change, Change) else change
    assert log is not None
    assert Document.load(None, [log]).snapshot() == doc.get_update()


def test_what_took_long_and_is_in_is_not_refused() -> None:
    ticks = count()
    document = Document(clock=lambda: float(next(ticks)))

    update = plain(1000)

    assert document.apply(update, "ada") is update


def test_what_is_kept_repeats_no_deletions_of_others() -> None:
    document, ada = Document(clock=slow()), Writer()
    document.apply(plain(1000), "ada")
    apply_all(document, [*ada.write("abc"), ada.erase(1, 2)])

    with pytest.raises(TooCostly) as refusal:
        document.apply(before_each(1000), "eve")

    assert scan(refusal.value.kept.log).deletes == []


def test_deletions_that_went_in_are_kept_too() -> None:
    document, ada = Document(clock=slow()), Writer()
    apply_all(document, ada.write("ab" * 12_000))
    for at in range(12_000):
        del ada.text[at : at + 1]
    erasure = ada.doc.get_update(ada.doc.get_state())

    with pytest.raises(TooCostly) as refusal:
        document.apply(erasure, "ada")

    assert 1024 <= len(scan(refusal.value.kept.log).deletes) < 12_000
    again = Document.load(None, [ada.updates[0], refusal.value.kept.log])
    assert again.deletes() == document.deletes()


def test_a_short_update_of_many_insertions_is_bounded_in_a_large_document() -> None:
    document = Document(clock=slow(), max_update_bytes=1 << 21)
    document.apply(plain(1 << 20), "ada")
    short = before_each(32)
    assert len(short) < LONG_BYTES

    with pytest.raises(TooCostly):
        document.apply(short, "eve")


def test_an_answer_that_takes_too_long_is_refused_too() -> None:
    document = Document(clock=slow())
    document.apply(plain(1000), "ada")

    with pytest.raises(TooCostly) as refusal:
        document.apply(before_each(1000), "eve", precise=True)

    again = Document.load(None, [plain(1000), refusal.value.kept.log])
    assert again.snapshot() == document.snapshot()


def test_whoever_lets_in_what_takes_too_long_leaves_the_document_to_be_rebuilt() -> (
    None
):
    document, bob = Document(clock=slow()), Writer()
    first = bob.write("b")
    document.apply(plain(1000), "ada")
    document.apply(before_each(1000, after=bob.doc.client_id), "eve")

    with pytest.raises(DocumentBroken, match="too long"):
        apply_all(document, first)


def test_what_is_long_and_quick_goes_in_whole() -> None:
    document, ada = Document(clock=lambda: 0.0), Writer()
    for word in ("one ", "two ") * 500:
        ada.text.insert(0, word)
        del ada.text[0:1]
    whole = ada.doc.get_update()

    assert document.apply(whole, "ada") is whole
    assert read(document) == str(ada.text)
    assert document.gate.known == {ada.doc.client_id: 4000}


def test_a_precise_apply_of_much_that_is_known_forwards_what_is_new_alone() -> None:
    document, ada = Document(clock=lambda: 0.0), Writer()
    for _ in range(300):
        ada.text.insert(0, "one ")
        del ada.text[0:1]
    document.apply(ada.doc.get_update(), "ada")
    ada.write("new")

    change = document.apply(ada.doc.get_update(), "ada", precise=True)

    assert isinstance(change, Change)
    assert change.forward == (change.log,)
    assert [run.clock for run in scan(change.log).runs] == [1200]
    assert read(document) == str(ada.text)


def test_what_was_let_in_elsewhere_or_is_ours_may_take_as_long_as_it_does() -> None:
    document, ours = Document(clock=slow()), Document(clock=slow())
    for each in (document, ours):
        each.apply(plain(1000), "ada")

    document.merge(before_each(1000), "eve")
    ours.apply(before_each(1000), "eve", is_ours=True)

    assert len(read(document)) == len(read(ours)) == 2000


def test_a_log_is_loaded_in_small_steps() -> None:
    ada = Writer()
    updates = [*ada.write("a", "b", "c"), plain(300), before_each(300)]

    steps = sum(1 for _ in Document.loading(None, updates))

    assert steps >= 4 + 300 // 64


def test_a_document_from_a_checkpoint_is_quick_to_copy_until_it_has_grown() -> None:
    document, ada = Document.load(plain(100_000), []), Writer()
    size = len(document.snapshot())

    apply_all(document, ada.write("b"))

    assert size < len(document.snapshot()) <= document.proven < size + 200
