"""Firefox, headless, driven over WebDriver BiDi (https://w3c.github.io/webdriver-bidi/): what stock Firefox speaks by
itself, so there is no driver to download. Contexts and pages have as much of playwright's interface as `Person` uses.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.waiting import eventually
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import Ping, Request, TextMessage

NAMES = ("firefox-esr", "firefox")
START_S, ANSWER_S, STOP_S = 60.0, 60.0, 10.0

PREFERENCES: dict[str, bool | int | str] = {
    # a fake camera and microphone, given to every page
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.navigator.video.default_fps": 8,  # as Chromium's
    "permissions.default.camera": 1,
    "permissions.default.microphone": 1,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "media.peerconnection.ice.loopback": True,
    # nothing of its own over the network
    "app.update.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.systemAddon.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.server": "",
}

_CALL = """(async () => {{
    const found = ({expression});
    return JSON.stringify(typeof found === 'function' ? await found({argument}) : await found);
}})()"""
_MIDDLE_JS = """(selector) => {
    const box = document.querySelector(selector)?.getBoundingClientRect();
    return box && box.width ? [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)] : null;
}"""


class Firefox:
    """A browser with one profile, gone when it is closed; the test is skipped where there is none."""

    def __init__(self) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip("no Firefox is installed")
        self._profile = Path(tempfile.mkdtemp(prefix="sfu-firefox-"))
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items())
        (self._profile / "user.js").write_text("\n".join(lines))
        options = ["--headless", "--no-remote", "--profile", str(self._profile), "--remote-debugging-port", "0"]
        with (self._profile / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [program, *options], stdout=subprocess.DEVNULL, stderr=stderr,
                env=os.environ | {"HOME": str(self._profile), "MOZ_CRASHREPORTER_DISABLE": "1"},
            )  # fmt: skip
        self.pages: dict[str, Page] = {}
        try:
            self._bidi = Bidi(eventually(self._address, "Firefox listens", START_S), self._logged)
            self.ask = self._bidi.ask
            self.ask("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
            self.ask("session.subscribe", events=["log.entryAdded"])
        except BaseException:
            self.close()
            raise

    def _address(self) -> str | None:
        output = (self._profile / "stderr").read_text(errors="replace")
        assert self._process.poll() is None, output
        found = re.search(r"WebDriver BiDi listening on (ws://\S+)", output)
        return found and found[1]

    def _logged(self, entry: Any) -> None:
        page = self.pages.get(entry["source"].get("context"))
        if page is not None and entry["type"] == "javascript" and entry["level"] == "error":
            for listener in page.listeners:
                listener(entry["text"])

    def new_context(self, **_: Any) -> Context:
        """A profile's cookies and storage apart. Devices and certificates are allowed to every page."""
        return Context(self)

    def close(self) -> None:
        if hasattr(self, "_bidi"):
            self._bidi.close()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)


class Bidi:
    """One WebSocket: commands and their results in turn; `logged` gets each log.entryAdded that comes meanwhile."""

    def __init__(self, address: str, logged: Callable[[Any], None]) -> None:
        self._logged = logged
        self._numbers = 0
        self._answers: dict[int, Any] = {}
        self._text = ""
        parts = urlsplit(address)
        self._socket = socket.create_connection((parts.hostname, parts.port), ANSWER_S)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._socket.sendall(self._protocol.send(Request(host=parts.netloc, target="/session")))
        while self._protocol.state is ConnectionState.CONNECTING:
            self._receive()

    def ask(self, method: str, **parameters: Any) -> Any:
        """Carries out a command and returns its result."""
        answer = self._answer(method, parameters)
        if "NS_BINDING_ABORTED" in answer.get("message", ""):  # a navigation that soon follows another, at times
            answer = self._answer(method, parameters)
        assert answer["type"] == "success", f"{method}: {answer}"
        return answer["result"]

    def _answer(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._numbers += 1
        number = self._numbers
        message = json.dumps({"id": number, "method": method, "params": parameters})
        self._socket.sendall(self._protocol.send(TextMessage(message)))
        while number not in self._answers:
            self._receive()
        answer: dict[str, Any] = self._answers.pop(number)
        return answer

    def _receive(self) -> None:
        data = self._socket.recv(1 << 16)
        assert data, "Firefox has ended"
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            if isinstance(event, Ping):
                self._socket.sendall(self._protocol.send(event.response()))
            elif isinstance(event, TextMessage):
                self._text += event.data
                if event.message_finished:
                    message, self._text = json.loads(self._text), ""
                    if "id" in message:
                        self._answers[message["id"]] = message
                    elif message["method"] == "log.entryAdded":
                        self._logged(message["params"])

    def close(self) -> None:
        self._socket.close()


class Context:
    def __init__(self, firefox: Firefox) -> None:
        self._firefox = firefox
        self._id = firefox.ask("browser.createUserContext")["userContext"]

    def new_page(self) -> Page:
        made = self._firefox.ask("browsingContext.create", type="tab", userContext=self._id)
        return Page(self._firefox, made["context"])

    def close(self) -> None:
        self._firefox.ask("browser.removeUserContext", userContext=self._id)


class Page:
    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox, self._context = firefox, context
        self.listeners: list[Callable[[str], None]] = []
        firefox.pages[context] = self

    def on(self, event: str, listener: Callable[[str], None]) -> None:
        assert event == "pageerror"
        self.listeners.append(listener)

    def add_init_script(self, script: str) -> None:
        """Runs a script before those of each document that this page loads from now on, if that has an origin."""
        declared = f"() => {{ if (origin !== 'null') {{ {script} }} }}"
        self._firefox.ask("script.addPreloadScript", functionDeclaration=declared, contexts=[self._context])

    def goto(self, url: str) -> None:
        self._firefox.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def resize(self, width: int, height: int) -> None:
        """What the page has to show itself in, in CSS pixels."""
        viewport = {"width": width, "height": height}
        self._firefox.ask("browsingContext.setViewport", context=self._context, viewport=viewport)

    def evaluate(self, expression: str, argument: Any = None) -> Any:
        """What an expression is, or what a function returns for the argument, as JSON carries it."""
        call = _CALL.format(expression=expression, argument=json.dumps(argument))
        target = {"context": self._context}
        answer = self._firefox.ask("script.evaluate", expression=call, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"].get("value", "null"))

    def click(self, selector: str) -> None:
        x, y = eventually(lambda: self.evaluate(_MIDDLE_JS, selector), f"{selector} is shown")
        self._act("pointer", {"type": "pointerMove", "x": x, "y": y}, {"type": "pointerDown", "button": 0},
                  {"type": "pointerUp", "button": 0})  # fmt: skip

    def type(self, text: str) -> None:
        """Keys, one after the other; a newline is the Enter key."""
        keys = ("\ue007" if key == "\n" else key for key in text)
        self._act("key", *({"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")))

    def press(self, key: str, *, down: bool) -> None:
        """Half of what a key does: `down`, or else up."""
        self._act("key", {"type": "keyDown" if down else "keyUp", "value": key})

    def _act(self, source: str, *actions: dict[str, Any]) -> None:
        made = [{"type": source, "id": source, "actions": list(actions)}]
        self._firefox.ask("input.performActions", context=self._context, actions=made)
