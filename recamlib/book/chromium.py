"""Chromium by its own protocol: pages as people see them, for the tests of the book and for its PDF."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

from recamlib.errors import RecamError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0  # seconds that a start, a page or an answer may take


class BrowserError(RecamError):
    """There is no Chromium, it did not start, or a page did not do what it should."""


def find_chromium() -> str | None:
    """Return the path of Chromium: ``$RECAM_CHROMIUM``, or the first of its names on the PATH, or None."""
    return os.environ.get("RECAM_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def require_chromium() -> str:
    """Return the path of Chromium.

    Raises
    ------
    BrowserError
        If there is none, saying where to get it.
    """
    program = find_chromium()
    if program is None or shutil.which(program) is None:
        what = f"RECAM_CHROMIUM names {program}, which does not run" if program else "no Chromium on the PATH"
        raise BrowserError(f"{what}: install it (Debian: apt install chromium) or set RECAM_CHROMIUM")
    return program


class Tab:
    """One page: open an address, ask it, look at it. What it says and asks for is kept in ``events``."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(
            address, timeout=PATIENCE, suppress_origin=True, http_no_proxy=["127.0.0.1"]
        )
        self._number = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Close the connection; the page goes with its browser."""
        self._socket.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to one command of the protocol.

        Raises
        ------
        BrowserError
            If the browser refuses it or does not answer in time.
        """
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = self._receive(method)
            if message.get("id") == self._number:
                if "error" in message:
                    raise BrowserError(f"Chromium refused {method}: {message['error']['message']}")
                return message["result"]

    def _receive(self, waiting_for: str) -> dict[str, Any]:
        try:
            message = json.loads(self._socket.recv())
        except (websocket.WebSocketException, OSError) as error:
            raise BrowserError(f"Chromium gave no answer to {waiting_for} ({error})") from None
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page at a width in CSS pixels and wait until it is there, its fonts and formulas too."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        wishes = {"color-scheme": "dark" if dark else "light", "reduced-motion": "reduce"}
        features = [{"name": f"prefers-{name}", "value": value} for name, value in wishes.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        went = self.call("Page.navigate", url=address)
        if "errorText" in went:
            raise BrowserError(f"Chromium cannot open {address}: {went['errorText']}")
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive(f"opening {address}")
        ready = "[window.MathJax?.startup?.promise, document.fonts.ready]"
        self.evaluate(f"Promise.all({ready}).then(() => true)")

    def evaluate(self, script: str) -> Any:
        """Return what a JavaScript expression is, promises awaited, as plain data.

        Raises
        ------
        BrowserError
            If it throws.
        """
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details["text"]
            raise BrowserError(f"the page threw: {text}")
        return answer["result"].get("value")


@contextlib.contextmanager
def browser() -> Iterator[Tab]:
    """Start Chromium without a window and yield a tab; it and its profile are gone afterwards.

    Raises
    ------
    BrowserError
        If there is no Chromium, or it does not start.
    """
    program = require_chromium()
    with tempfile.TemporaryDirectory(prefix="recam-chromium-", ignore_cleanup_errors=True) as profile:
        flags = [
            "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--disable-gpu",
            "--hide-scrollbars", "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("--no-sandbox")  # its sandbox refuses root, which containers run as
        log = Path(profile) / "stderr.txt"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [program, *flags, "about:blank"], stdout=errors, stderr=errors, start_new_session=True
            )
        try:
            tab = Tab(_address(process, Path(profile), log))
            try:
                yield tab
            finally:
                tab.close()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # its helpers too
            process.wait()


def _address(process: subprocess.Popen, profile: Path, log: Path) -> str:
    """Return the address of the first page, once the browser has written where it listens."""
    written, deadline = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if written.is_file() and len(lines := written.read_text().split()) > 1:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this machine
            with opener.open(f"http://127.0.0.1:{lines[0]}/json/list", timeout=PATIENCE) as answer:
                pages = [entry for entry in json.load(answer) if entry["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip().splitlines()
    raise BrowserError(f"Chromium did not start: {said[-1] if said else 'it said nothing'}")
