"""A real browser without a window: Chromium, driven by its DevTools protocol over two pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Browser", "Page", "find_browser"]

_PATIENCE_S = 30.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
    "Home": (36, ""),
    " ": (32, " "),
}
_SHIFT = 8
# Looks as often as the page may have changed; the answer is what the condition became.
_WAIT = """
new Promise((resolve, reject) => {
  const end = performance.now() + %d;
  const look = () => {
    let found;
    try { found = (%s); } catch (error) { return reject(error); }
    if (found) return resolve(found);
    if (performance.now() > end) return reject(new Error("this did not come true"));
    setTimeout(look, 20);
  };
  look();
})
"""


def find_browser() -> str | None:
    """The browser of this machine; None if there is none."""
    given = os.environ.get("ONHAND_CHROMIUM")
    return given or next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """The process. To be used by one thread, as a context manager."""

    def __init__(self, program: str, place: Path) -> None:
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}
        self._rest = b""
        self._last = 0
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # High numbers, so that putting them at 3 and 4 overwrites none of them.
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 100) for one in (theirs_in, theirs_out)]
        try:
            self._pid = os.posix_spawn(
                program,
                [
                    program,
                    "--headless=new",
                    "--remote-debugging-pipe",
                    f"--user-data-dir={place}",
                    "--no-sandbox",  # it cannot be had in most containers
                    "--no-first-run",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--force-device-scale-factor=1",
                    "--lang=en-US",
                    "about:blank",
                ],
                {**os.environ, "HOME": str(place)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, high[0], 3),
                    (os.POSIX_SPAWN_DUP2, high[1], 4),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
            )
        finally:
            for one in (theirs_in, theirs_out, *high):
                os.close(one)
        self._from, self._to = ours_in, ours_out

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process, kindly or not."""
        os.close(self._to)  # it ends by itself when nobody drives it
        end_s = time.monotonic() + 5
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > end_s:
                os.killpg(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                break
            time.sleep(0.02)
        os.close(self._from)

    def page(self) -> "Page":
        """Open a tab that shares nothing with others."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"], context)
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, *, session: str | None = None, **params: object) -> dict[str, Any]:
        """Ask the browser for something, and wait for it."""
        self._last += 1
        message: dict[str, object] = {"id": self._last, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end_s = time.monotonic() + 2 * _PATIENCE_S
        while self._last not in self._answers:
            self._read(end_s)
        answer = self._answers.pop(self._last)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self, end_s: float) -> None:
        ready, _, _ = select.select([self._from], [], [], max(0.0, end_s - time.monotonic()))
        if not ready:
            raise AssertionError("the browser does not answer")
        data = os.read(self._from, 1 << 20)
        if not data:
            raise AssertionError("the browser has ended")
        *messages, self._rest = (self._rest + data).split(b"\0")
        for one in map(json.loads, messages):
            if "id" in one:
                self._answers[one["id"]] = one
            elif one.get("sessionId") in self._pages:
                self._pages[one["sessionId"]].saw(one["method"], one["params"])


@dataclass(slots=True)
class Page:
    """One tab.

    Attributes:
        requests: addresses that it asked for.
        complaints: errors and warnings of the console, and exceptions that nobody caught.
    """

    _browser: Browser
    _session: str
    _context: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Ask the browser for something of this tab."""
        return self._browser.call(method, session=self._session, **params)

    def saw(self, method: str, params: Mapping[str, Any]) -> None:
        """Note an event."""
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url')}")
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                thrown = details.get("exception", {}).get("description", "")
                self.complaints.append(f"{details['text']} {thrown}")
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str([one.get("value") for one in params["args"]]))

    def open(self, url: str) -> None:
        """Go there; it is loaded when this returns."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def run(self, code: str) -> Any:
        """Evaluate an expression in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details["text"])
            raise AssertionError(f"{code}: {thrown}; complaints: {self.complaints}")
        return answer["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Wait until an expression is true, and return what it became."""
        return self.run(_WAIT % (_PATIENCE_S * 1000, condition))

    def text(self, selector: str) -> str:
        """The text of an element."""
        found: str = self.run(f"document.querySelector({json.dumps(selector)}).textContent")
        return found

    def write(self, text: str) -> None:
        """Put text where the focus is, as a keyboard does."""
        self.call("Input.insertText", text=text)

    def press(self, *keys: str, shift: bool = False) -> None:
        """Press some keys, one after the other."""
        for key in keys:
            code, text = _KEYS[key]
            about: dict[str, object] = {"key": key, "windowsVirtualKeyCode": code}
            about["modifiers"] = _SHIFT if shift else 0
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, selector: str) -> None:
        """Click in the middle of an element, when it is shown."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"{found}?.checkVisibility()")
        x, y = self.run(
            f"(() => {{ const box = {found}.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        about = {"x": x, "y": y, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **about)

    def look(self, *, width: int = 1280, height: int = 800, is_dark: bool = False) -> None:
        """Show it on a screen of another size or theme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features: Sequence[Mapping[str, str]] = [
            {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, place: Path) -> None:
        """Keep what it shows as a PNG."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        place.write_bytes(base64.b64decode(data))
