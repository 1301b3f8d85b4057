"""One browser for the tests of a file, and a tab for each test."""

from collections.abc import Iterator

import pytest
from tests.device.serving.page.browser import Browser, Page, find_browser
from tests.device.serving.page.scripted import Scripted
from tests.device.serving.served import serving


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser of this machine; tests that need one are skipped where there is none."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on this machine: install it, or set ONHAND_CHROMIUM to its path")
    with Browser(program, tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab that shares nothing with those of other tests."""
    found = browser.page()
    found.look()
    yield found
    found.close()


@pytest.fixture(scope="module")
def library(browser: Browser) -> Iterator[Page]:
    """A tab to try functions of the page's modules in; no test changes anything there."""
    with serving(Scripted(lambda _: ["on"])) as served:
        page = browser.page()
        page.open(served.url)
        yield page
        page.close()
