"""The page's files: whole, small, of this server alone, and sent with strict headers."""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import httpx2
import pytest
from tests.device.serving.page.scripted import Scripted
from tests.device.serving.served import serving

from onhand.device.serving.page.files import PAGE_PATHS, page_files

MOST_BYTES = 96 * 1024
MOST_LINES = 450
TEXTS = {path: file.content.decode() for path, file in page_files().items()}
HTML = TEXTS["/"]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    """A client of a server that runs."""
    with (
        serving(Scripted(lambda _: ["on"])) as served,
        httpx2.Client(base_url=served.url) as found,
    ):
        yield found


def test_every_file_of_the_folder_is_served() -> None:
    """None is forgotten, and none is sent that is not there."""
    folder = resources.files("onhand.device.serving.page") / "static"
    names = {entry.name for entry in folder.iterdir()} - {"index.html"}

    assert {"/", *(f"/page/{name}" for name in names)} == PAGE_PATHS == set(page_files())


def test_the_page_is_small() -> None:
    """All of it together, and every file by itself."""
    assert sum(len(file.content) for file in page_files().values()) < MOST_BYTES
    assert [path for path, text in TEXTS.items() if text.count("\n") > MOST_LINES] == []


@pytest.mark.parametrize("path", sorted(PAGE_PATHS))
def test_nothing_comes_from_elsewhere(path: str) -> None:
    """No address of another server; a name space of SVG is none that is asked for."""
    text = TEXTS[path].replace("http://www.w3.org/2000/svg", "")

    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", text) == []
    assert re.findall(r"@import|url\(", text) == []
    for named in re.findall(r"(?:src|href|from) ?=? ?\"(/[^\"#]*)\"", text):
        assert named in PAGE_PATHS


def test_nothing_is_inline() -> None:
    """Neither scripts nor styles nor handlers: the policy would not run them."""
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", HTML) == []


@pytest.mark.parametrize("path", sorted(path for path in PAGE_PATHS if path.endswith(".js")))
def test_text_never_becomes_html_or_code(path: str) -> None:
    """None of the ways in which a browser reads a text as a page or a program."""
    ways = (
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|srcdoc|DOMParser"
    )

    assert re.findall(ways, TEXTS[path]) == []
    assert "localStorage" not in TEXTS[path]


@pytest.mark.parametrize("path", sorted(PAGE_PATHS))
def test_headers_are_strict(client: httpx2.Client, path: str) -> None:
    """On every file, also where it is not sent again."""
    whole = client.get(path)
    known = client.get(path, headers={"if-none-match": whole.headers["etag"]})

    assert (whole.status_code, known.status_code) == (200, 304)
    assert whole.content == page_files()[path].content
    assert known.content == b""
    for answer in (whole, known):
        policy = dict(
            part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-cache"
        assert "access-control-allow-origin" not in answer.headers


def test_tags_are_compared_as_http_says(client: httpx2.Client) -> None:
    """A list, a weak one, any; another tag gets the file."""
    tag = page_files()["/"].tag

    def status(known: str) -> int:
        return client.get("/", headers={"if-none-match": known}).status_code

    assert status(f'"old", W/{tag}') == status("*") == 304
    assert status('"old"') == status(tag.strip('"')) == 200
    assert len({file.tag for file in page_files().values()}) == len(PAGE_PATHS)


def test_head_says_what_get_would(client: httpx2.Client) -> None:
    """Without the content."""
    answer = client.head("/page/main.js")

    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) == len(page_files()["/page/main.js"].content)


@pytest.mark.parametrize(
    "path", ["/page", "/page/", "/page/index.html", "/page/../settings.py", "/page/%2e%2e/files.py"]
)
def test_attack_path_beyond_the_files(client: httpx2.Client, path: str) -> None:
    """Only listed names are looked up; there is no folder to leave."""
    assert client.get(path).status_code == 404


def test_every_control_has_a_label() -> None:
    """In the page as it comes, without a browser."""
    labelled = set(re.findall(r'<label for="([\w-]+)"', HTML))

    assert set(re.findall(r'<(?:input|select|textarea) id="([\w-]+)"', HTML)) == labelled
    assert re.findall(r"<button[^>]*></button>", HTML) == []


def test_the_files_belong_to_the_package() -> None:
    """They lie beside the code, so that a wheel has them."""
    package = Path(str(resources.files("onhand.device.serving.page")))

    assert (package / "files.py").is_file()
    assert (package / "static" / "index.html").read_bytes() == page_files()["/"].content
