"""One browser for the tests of a file, and a tab for each test."""

from collections.abc import Iterator

import pytest
from tests.device.serving.page.browser import Browser, Page, find_browser


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
