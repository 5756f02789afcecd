"""The committed bundle is what the sources build; told without Node, by the hashes in its manifest."""

import gzip
import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "client-js"
PAGES = ROOT / "collab" / "server" / "pages"
MANIFEST = json.loads((PAGES / "manifest.json").read_bytes())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sources_hash(client: Path) -> str:
    """As build.mjs computes it: a line for each source, in the order of their paths."""
    inputs = [client / "build.mjs", client / "package-lock.json"]
    inputs += [path for path in (client / "src").rglob("*") if path.is_file()]
    lines = {
        path.relative_to(client).as_posix(): sha256(path.read_bytes())
        for path in inputs
    }
    return sha256(
        "".join(f"{lines[path]}  {path}\n" for path in sorted(lines)).encode()
    )


def test_the_bundle_was_built_from_these_sources() -> None:
    assert MANIFEST["sources"] == sources_hash(CLIENT), (
        "stale: run `npm run build` in client-js"
    )


def test_the_bundle_is_as_it_was_built() -> None:
    found = {
        path.name: sha256(path.read_bytes())
        for path in PAGES.iterdir()
        if path.name != "manifest.json"
    }

    assert found == MANIFEST["files"]


def test_a_changed_source_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "src" / "page").mkdir(parents=True)
    for name in ("build.mjs", "package-lock.json", "src/page/main.ts"):
        (tmp_path / name).write_text(name)
    before = sources_hash(tmp_path)

    (tmp_path / "src" / "page" / "main.ts").write_text("another")

    assert sources_hash(tmp_path) != before


def test_the_page_names_only_files_of_the_bundle() -> None:
    html = (PAGES / "index.html").read_text()

    named = {part.split('"')[0] for part in html.split('"/static/')[1:]}

    assert len(named) == 4
    assert named <= MANIFEST["files"].keys()


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    html = (PAGES / "index.html").read_text()

    assert "<style" not in html
    assert "style=" not in html
    assert html.count("<script") == html.count('<script type="module" src=')
    assert "http:" not in html
    assert "https:" not in html


def test_the_script_stays_small_enough_for_a_slow_line() -> None:
    scripts = [name for name in MANIFEST["files"] if name.endswith(".js")]

    assert len(scripts) == 1
    assert len(gzip.compress((PAGES / scripts[0]).read_bytes())) < 170_000


def test_the_licences_of_everything_in_it_go_with_it() -> None:
    licences = (PAGES / "licences.txt").read_text()

    for package in ("yjs", "lib0", "@codemirror/view", "@fontsource-variable/"):
        assert f"\n{package}" in licences


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((CLIENT / "package-lock.json").read_bytes())

    packages = lock["packages"].values()

    assert not [each for each in packages if "resolved" in each]
    assert all("integrity" in each for name, each in lock["packages"].items() if name)
