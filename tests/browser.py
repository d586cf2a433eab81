"""A headless Chromium, driven through its debugging pipe so that nothing has to be installed beside it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


REQUIRED = "IQT_REQUIRE_BROWSER"
"""Environment variable that makes a missing browser a failure."""
MISSING = f"NO BROWSER: none of {', '.join(NAMES)} is on PATH (Debian: apt-get install chromium); {REQUIRED}=1 fails"


def program() -> str:
    """Chromium's or Chrome's program; without one the test is skipped, or fails where `IQT_REQUIRE_BROWSER` is set."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(MISSING)
    return found


class Browser:
    """One page; `requests` and `complaints` hold every request it made and everything written to its console."""

    def __init__(self, program: str, profile: Path, width: int = 1280, height: int = 900) -> None:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        options = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe --no-first-run"
        )
        options += f" --disable-background-networking --window-size={width},{height} --user-data-dir={profile}"
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {program} {options} about:blank 3<&{to_read} 4>&{from_write}"],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        self._in, self._out = os.fdopen(to_write, "wb", 0), os.fdopen(from_read, "rb")
        self._buffer, self._number, self._session = b"", 0, None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict:
        """A command of the DevTools protocol and its answer; events that come before it are noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._in.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> Any:
        """The value of an expression once it is true."""
        until = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > until:
                raise TimeoutError(f"never true: {script}; the console says {self.complaints}")
            time.sleep(0.05)
        return value

    def open(self, path: Path) -> None:
        """Load a file and wait until it is drawn."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait(f"document.readyState === 'complete' && location.href.endsWith({json.dumps(path.name)})")

    def resize(self, width: int, height: int) -> None:
        """The size of a phone, or of a desk."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def mouse(self, kind: str, x: float, y: float) -> None:
        """`mousePressed`, `mouseMoved` or `mouseReleased`, with the left button."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What is seen, or the whole page, as PNG."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def close(self) -> None:
        """End the browser and what it started."""
        self._session = None
        self._in.write(json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._in.close()
        self._out.close()

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            part = os.read(self._out.fileno(), 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict) -> None:
        content = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(content["exceptionDetails"]))
        elif event["method"] == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning"):
            self.complaints.append(str(content["args"]))
        elif event["method"] == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.complaints.append(content["entry"]["text"])
