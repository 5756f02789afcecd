"""The playground's files: under a strict policy, cached for ever by their names, or revalidated by their tags."""

import gzip

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from collab.server import playground

SCRIPT = next(name for name in playground.load() if name.endswith(".js"))
FONT = next(name for name in playground.load() if name.endswith(".woff2"))


@pytest.fixture
def client() -> TestClient:
    return TestClient(
        Starlette(routes=playground.routes()), headers={"accept-encoding": "identity"}
    )


def test_the_page_is_at_the_root(client: TestClient) -> None:
    answer = client.get("/?room=anything")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert f"/static/{SCRIPT}" in answer.text


def test_every_file_of_the_bundle_is_served_as_it_is(client: TestClient) -> None:
    for name, page in playground.load().items():
        answer = client.get(f"/static/{name}")

        assert answer.status_code == 200
        assert answer.content == page.content


@pytest.mark.parametrize("path", ["/", f"/static/{SCRIPT}", f"/static/{FONT}"])
def test_the_policy_allows_nothing_inline_nothing_foreign_and_no_frame(
    client: TestClient, path: str
) -> None:
    headers = client.get(path).headers

    policy = dict(
        part.split(" ", 1) for part in headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "font")} == {"'self'"}
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("ending", "media_type"),
    [
        (".js", "text/javascript; charset=utf-8"),
        (".css", "text/css; charset=utf-8"),
        (".woff2", "font/woff2"),
        (".svg", "image/svg+xml"),
    ],
)
def test_files_are_what_they_say_they_are(
    client: TestClient, ending: str, media_type: str
) -> None:
    name = next(name for name in playground.load() if name.endswith(ending))

    assert client.get(f"/static/{name}").headers["content-type"] == media_type


def test_files_named_after_their_content_are_kept_for_ever(client: TestClient) -> None:
    headers = client.get(f"/static/{SCRIPT}").headers

    assert headers["cache-control"] == "public, max-age=31536000, immutable"


def test_files_with_lasting_names_are_asked_for_again(client: TestClient) -> None:
    for path in ("/", "/static/index.html", "/static/licences.txt"):
        assert client.get(path).headers["cache-control"] == "no-cache"


def test_a_copy_that_is_fresh_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/").headers["etag"]

    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = client.get("/", headers={"if-none-match": known})

        assert answer.status_code == 304
        assert answer.content == b""
        assert answer.headers["etag"] == tag
        assert "content-security-policy" in answer.headers


def test_a_copy_that_is_stale_is_sent_again(client: TestClient) -> None:
    answer = client.get("/", headers={"if-none-match": '"another"'})

    assert answer.status_code == 200
    assert answer.content


def test_each_encoding_has_a_tag_of_its_own(client: TestClient) -> None:
    plain = client.get(f"/static/{SCRIPT}")
    small = client.get(f"/static/{SCRIPT}", headers={"accept-encoding": "br, gzip"})

    stale = client.get(
        f"/static/{SCRIPT}",
        headers={"accept-encoding": "gzip", "if-none-match": plain.headers["etag"]},
    )

    assert small.headers["content-encoding"] == "gzip"
    assert small.content == plain.content
    assert int(small.headers["content-length"]) < len(plain.content) / 2
    assert small.headers["etag"] != plain.headers["etag"]
    assert small.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert stale.status_code == 200


@pytest.mark.parametrize("accepted", ["identity", "br", "gzip;q=0", "gzip; q=0.0"])
def test_nothing_is_compressed_for_who_cannot_read_it(
    client: TestClient, accepted: str
) -> None:
    answer = client.get(f"/static/{SCRIPT}", headers={"accept-encoding": accepted})

    assert "content-encoding" not in answer.headers


def test_a_font_is_not_compressed_a_second_time(client: TestClient) -> None:
    answer = client.get(f"/static/{FONT}", headers={"accept-encoding": "gzip"})

    assert "content-encoding" not in answer.headers


def test_compression_is_the_same_every_time() -> None:
    page = playground.load()["index.html"]

    assert page.compressed == gzip.compress(page.content, mtime=0)


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/none.js",
        "/static/manifest.json",
        "/static/..%2f__init__.py",
        "/static/%2e%2e/playground.py",
        "/static/../playground.py",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_head_answers_without_a_body(client: TestClient) -> None:
    answer = client.head("/")

    assert answer.status_code == 200
    assert answer.content == b""
    assert "etag" in answer.headers


def test_nothing_can_be_posted(client: TestClient) -> None:
    assert client.post("/").status_code == 405
