"""The blocking client is typed like the asynchronous one."""

from blocking import STUB, shape, written


def test_the_stub_says_what_the_asynchronous_client_can_do() -> None:
    assert shape(STUB.read_text()) == shape(written()), (
        "run .venv/bin/python tests/blocking.py"
    )
