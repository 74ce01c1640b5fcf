"""A headless Chromium that a test talks to over a pipe, in the words of the DevTools protocol: no driver is needed."""

import json
import os
import select
import shlex
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_SECONDS = 30


class Browser:
    """One tab: commands out, results and events in."""

    def __init__(self, reads, writes):
        self._reads, self._writes, self._rest, self._last = reads, writes, b"", 0
        self.events, self._session = [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method, **parameters):
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda found: found.get("id") == self._last)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _until(self, wanted):
        end = time.monotonic() + _SECONDS
        while True:
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._reads], [], [], max(0, end - time.monotonic()))
                got = os.read(self._reads, 1 << 16) if ready else b""
                if not got:
                    raise TimeoutError(f"the browser did not answer within {_SECONDS} s")
                self._rest += got
            text, _, self._rest = self._rest.partition(b"\0")
            found = json.loads(text)
            if "method" in found:
                self.events.append(found)
            if wanted(found):
                return found

    def open(self, url):
        self.events.clear()
        self("Page.navigate", url=url)
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._until(lambda found: found.get("method") == "Page.loadEventFired")

    def run(self, script):
        """What an expression is worth on the page."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def width(self, pixels):
        self("Emulation.setDeviceMetricsOverride", width=pixels, height=900, deviceScaleFactor=1, mobile=False)

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    @property
    def complaints(self):
        """Errors that the page raised or the console shows."""
        bad = []
        for event in self.events:
            entry = event["params"].get("entry", {})
            if event["method"] == "Runtime.exceptionThrown" or entry.get("level") in ("error", "warning"):
                bad.append(event["params"])
            if event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "assert"):
                bad.append(event["params"])
        return bad


@contextmanager
def started(folder):
    """A browser with its profile in ``folder``; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser installed: looked for {', '.join(NAMES)}")
    if os.name != "posix":
        pytest.skip("the browser's pipe needs POSIX file descriptors")
    its_in, our_out = os.pipe()
    our_in, its_out = os.pipe()
    command = shlex.join([program, *_OPTIONS, f"--user-data-dir={folder / 'profile'}"])
    process = subprocess.Popen(
        # It reads from descriptor 3 and writes to 4, wherever ours are.
        ["bash", "-c", f"exec {command} 3<&{its_in} 4>&{its_out}"],
        pass_fds=(its_in, its_out),
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_in)
    os.close(its_out)
    try:
        yield Browser(our_in, our_out)
    finally:
        os.close(our_out)
        os.close(our_in)
        process.terminate()
        process.wait(10)
