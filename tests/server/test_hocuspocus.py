"""What a Hocuspocus client counts, and how much of it one message settles."""

from collab.server.hocuspocus import Place


def test_an_update_settles_itself() -> None:
    place = Place()

    assert place.settle(precise=False) == 1


def test_an_answer_settles_the_question_of_the_client_it_came_with() -> None:
    place = Place()
    place.questions = 1

    assert place.settle(precise=True) == 1
    assert place.questions == 0


def test_an_answer_that_only_we_asked_for_settles_nothing() -> None:
    place = Place()

    assert place.settle(precise=True) == 0


def test_what_was_refused_is_settled_by_the_answer_that_brings_it_again() -> None:
    place = Place()
    place.questions = 1
    place.refuse(precise=True)
    place.refuse(precise=False)
    place.refuse(precise=False)

    still_refused = place.refused
    place.refuse(precise=True)

    assert still_refused == 3
    assert place.settle(precise=True) == 3
    assert place.settle(precise=True) == 0
