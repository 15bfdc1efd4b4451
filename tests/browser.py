"""A page as a reader's browser shows it: headless Chromium, driven by its DevTools protocol over two pipes.

No port is opened and no package needed: `--remote-debugging-pipe` reads commands from descriptor 3 and answers on 4,
JSON ended by a zero byte. https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
QUIET_S = 0.5  # a page that has asked for nothing for so long is complete
LOADS = {"Network.requestWillBeSent": 1, "Network.loadingFinished": -1, "Network.loadingFailed": -1}


@dataclass
class Page:
    """What the browser had in the end.

    Attributes:
        dom: the document as HTML, after scripts ran.
        text: what a reader sees of it.
        console: `level: text (where)` of everything on the console: scripts, failed loads, uncaught exceptions.
        requests: every address asked for; `data:` and `blob:` are no addresses.
        answer: value of the expression `ask`.
    """

    dom: str = ""
    text: str = ""
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answer: Any = None

    @property
    def errors(self) -> list[str]:
        """The console's errors."""
        return [line for line in self.console if line.startswith("error: ")]


def open_page(
    url: str,
    tmp: Path,
    *,
    width: int = 1280,
    height: int = 900,
    screenshot: Path | None = None,
    until: Sequence[str] = (),
    ask: str = "undefined",
    timeout_s: float = 90.0,
) -> Page:
    """Opens a page, waits until it is complete, and returns what is there.

    Args:
        url: http://, or `Path.as_uri()` of a file.
        tmp: an empty folder for the browser's profile.
        width, height: of the window, in CSS pixels.
        screenshot: PNG to write, of the whole height of the page.
        until: words that must be visible before it counts as complete.
        ask: a JavaScript expression to evaluate at the end, e.g. `document.documentElement.scrollWidth`.
        timeout_s: how long all of it may take.

    Raises:
        AssertionError: not complete in time; says which words are missing and what the console said.
    """
    page = Page()
    with _chromium(tmp, time.monotonic() + timeout_s) as browser:
        browser.open(url, width, height)
        missing = browser.wait(list(until))
        page.text = browser.value("document.body.innerText")
        page.dom = browser.value("document.documentElement.outerHTML")
        page.answer = browser.value(ask)
        page.console, page.requests = browser.console, browser.requests
        if screenshot is not None:
            browser.picture(screenshot)
    assert not missing, f"{url} never showed {missing}; console: {page.console}; it shows:\n{page.text}"
    return page


class _Browser:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int, deadline: float) -> None:
        self._to, self._from, self._deadline = to_browser, from_browser, deadline
        self._buffer = b""
        self._calls = 0
        self._session: str | None = None
        self._is_loaded = False
        self._loading: set[str] = set()
        self.console: list[str] = []
        self.requests: list[str] = []

    def open(self, url: str, width: int, height: int) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        error = self.call("Page.navigate", url=url).get("errorText")
        assert not error, f"{url}: {error}"

    def wait(self, words: list[str]) -> list[str]:
        """Until loaded, quiet, and all words are there. Returns the words still missing when time is up."""
        quiet_since = time.monotonic()
        while time.monotonic() < self._deadline:
            if self._take(0.1) or self._loading or not self._is_loaded:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_S:
                text = self.value("document.body.innerText")
                words = [word for word in words if word not in text]
                if not words:
                    return []
        return words or ([] if self._is_loaded else ["anything: it did not load"])

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression, as JSON."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        # Only where there is more than the window: the page is laid out anew for it, and some start over.
        is_longer = self.value("document.documentElement.scrollHeight > window.innerHeight")
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=is_longer)["data"]
        path.write_bytes(base64.b64decode(data))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends one command and returns its answer; what happens meanwhile is noted."""
        self._calls += 1
        number = self._calls
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._take(10.0)
            assert answer or time.monotonic() < self._deadline, f"the browser did not answer {method} in time"
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _take(self, wait_s: float) -> dict[str, Any]:
        """The next message, noted; empty where none came."""
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], wait_s)[0]:
                return {}
            data = os.read(self._from, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, what: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._is_loaded = True
        elif event == "Runtime.consoleAPICalled":
            words = " ".join(str(item.get("value", item.get("description", ""))) for item in what["args"])
            frames = what.get("stackTrace", {}).get("callFrames", [])
            self.console.append(f"{what['type']}: {words} ({frames[0]['url'] if frames else ''})")
        elif event == "Runtime.exceptionThrown":
            thrown = what["exceptionDetails"]
            words = thrown.get("exception", {}).get("description") or thrown["text"]
            self.console.append(f"error: uncaught {words} ({thrown.get('url', '')})")
        elif event == "Log.entryAdded":
            entry = what["entry"]
            self.console.append(f"{entry['level']}: {entry['text']} ({entry.get('url', '')})")
        elif LOADS.get(event) == 1 and not what["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(what["request"]["url"])
            if what["loaderId"]:  # empty for a shared worker: the worker, not the page, hears that its script came
                self._loading.add(what["requestId"])
        elif LOADS.get(event) == -1:
            self._loading.discard(what["requestId"])


def _pipe() -> tuple[int, int]:
    """Its two ends above 9, so that neither is 3 or 4 before it is put there."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high[0], high[1]


@contextmanager
def _chromium(profile: Path, deadline: float) -> Iterator[_Browser]:
    """A browser of its own, ended by its process id. Skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on PATH ({', '.join(NAMES)}): apt-get install chromium")
    its_input, to_browser = _pipe()
    from_browser, its_output = _pipe()
    # dash, the usual sh, takes only one digit behind the sign.
    start = f'exec "$@" 3<&{its_input} 4>&{its_output}'
    command = ["bash", "-c", start, "bash", program, *FLAGS, f"--user-data-dir={profile}"]
    # A home of its own: Chromium writes to ~/.config and ~/.cache as well.
    env = os.environ | {"HOME": str(profile)}
    with (profile / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            command, pass_fds=(its_input, its_output), env=env, stdout=log, stderr=log, start_new_session=True
        )
        os.close(its_input)
        os.close(its_output)
        try:
            yield _Browser(to_browser, from_browser, deadline)
        finally:
            os.close(to_browser)  # its end of input is its end
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_browser)
