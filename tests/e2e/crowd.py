"""Many people in one room for little: one page holds their connections, each publishing a small drawn picture.

They are real peers of the server (protocol.js, alone); tokens keep them from receiving each other.
"""

from __future__ import annotations

import itertools
import json
import urllib.request
from typing import Any

from playwright.sync_api import Browser, Page
from support.process import Server
from support.waiting import eventually

_numbers = itertools.count(1)
AT_ONCE = 12
"""Of WebSockets: Chromium lets more of them wait, for seconds."""
NAMES = [
    *("Amira Haddad", "Jonas Lindqvist", "Mei Tanaka", "Tomás Oliveira", "Priya Raman", "Kofi Mensah"),
    *("Maximiliane von Hohenberg-Castell", "Lucas Weber", "Noor Al-Sayed", "Ingrid Solberg", "Mateo Rojas", "Hana Kim"),
    *("Oluwaseun Adeyemi", "Chiara Ricci", "Sam Whitfield", "Yusuf Demir", "Léa Moreau", "Diego Fuentes"),
    *("Anna Nowak", "Ravi Menon", "Freya Olsen", "Omar Farouk", "Julia Sommer", "Wei Zhang"),
]

DRAW_JS = """
const ends = [];
window.over = () => ends.splice(0).forEach((end) => end());
window.until = (stream, timer) => {
    ends.push(() => (clearInterval(timer), stream.getTracks().forEach((track) => track.stop())));
    return stream;
};
window.draw = (name, width, height, at) => {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const paint = canvas.getContext('2d');
    const seed = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) >>> 0, 7);
    const grounds = ['#a07450', '#5b6f87', '#7b685c', '#68806f', '#8f5a46', '#4a7370', '#9a9484', '#a58a45', '#6b7d4f'];
    const skins = ['#f0d3bd', '#e0ac86', '#c8926a', '#8d5a3b', '#6b4430'];
    const clothes = ['#2c3a35', '#7a3529', '#e8e4da', '#34506b', '#c8a24a', '#505c46'];
    let beat = 0;
    const frame = () => {
        const [w, h, r] = [width, height, height * 0.2];
        const [cx, cy] = [w / 2 + Math.sin(++beat / 9) * 2, h * 0.42];
        paint.fillStyle = grounds[seed % grounds.length];
        paint.fillRect(0, 0, w, h);
        paint.fillStyle = '#ffffff1c';
        paint.fillRect(w * (0.06 + (seed % 5) / 12), 0, w * 0.16, h * 0.55);
        paint.fillStyle = clothes[(seed >>> 3) % clothes.length];
        paint.beginPath();
        paint.ellipse(cx, h * 1.04, r * 1.75, h * 0.42, 0, 0, 7);
        paint.fill();
        paint.fillStyle = ['#26211f', '#5a3a22', '#b98a4a', '#77706a'][(seed >>> 5) % 4];
        paint.beginPath();
        paint.ellipse(cx, cy - r * 0.15, r * 1.08, r * 1.2, 0, 0, 7);
        paint.fill();
        paint.fillStyle = skins[(seed >>> 7) % skins.length];
        paint.fillRect(cx - r * 0.34, cy + r * 0.5, r * 0.68, r * 0.9);
        paint.beginPath();
        paint.ellipse(cx, cy + r * 0.08, r * 0.84, r * 0.98, 0, 0, 7);
        paint.fill();
    };
    frame();
    return window.until(canvas.captureStream(at), setInterval(frame, 1000 / at));
};
window.sheet = () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
    const paint = canvas.getContext('2d');
    const rows = ['Sign-in and tokens', 'Room limits', 'Screen share', 'Call receipt', 'Manual', 'Load test', 'Demo'];
    const frame = () => {
        paint.fillStyle = '#fcfcfa';
        paint.fillRect(0, 0, 1280, 720);
        paint.fillStyle = '#161c19';
        paint.font = '700 34px sans-serif';
        paint.fillText('Release 4, autumn plan', 60, 90);
        rows.forEach((row, index) => {
            paint.fillStyle = '#161c19';
            paint.font = '600 20px sans-serif';
            paint.fillText(row, 60, 172 + index * 74);
            paint.fillStyle = ['#4f7d67', '#5b7189', '#b08c3a', '#a75c44'][index % 4];
            paint.fillRect(330 + index * 100, 148 + index * 74, 240, 34);
            paint.fillStyle = '#e6e8e3';
            paint.fillRect(60, 204 + index * 74, 1160, 1);
        });
    };
    frame();
    return window.until(canvas.captureStream(2), setInterval(frame, 500));
};
"""

_JOIN_JS = """async (people) => {
    const { Room } = await import('/protocol.js');
    window.crowd ??= new Map();
    for (const { name, token, camera, screen, sound, height = 180 } of people) {
        const room = new Room({ url: new URL('/ws', location.href), token });
        if (camera) {
            const stream = window.draw(name, Math.round(height * 16 / 9), height, 5);
            room.publish('camera', stream.getVideoTracks()[0], stream);
        }
        if (sound) {
            const context = (window.context ??= new AudioContext());
            const [tone, out] = [context.createOscillator(), context.createMediaStreamDestination()];
            tone.connect(out);
            tone.start();
            window.until(out.stream);
            room.publish('microphone', out.stream.getAudioTracks()[0], out.stream);
        }
        if (screen) {
            const stream = window.sheet();
            room.publish('screen', stream.getVideoTracks()[0], stream);
        }
        window.crowd.set(name, room);
        room.join();
    }
}"""


VOICE_JS = """(name) => {
    const context = (window.context ??= new AudioContext());
    const [tone, out] = [context.createOscillator(), context.createMediaStreamDestination()];
    const volume = context.createGain();
    volume.gain.value = 0;
    tone.connect(volume).connect(out);
    tone.start();
    (window.voices ??= {})[name] = volume;
    window.crowd.get(name).publish('microphone', out.stream.getAudioTracks()[0], out.stream);
}"""
"""Gives one of the crowd a voice, silent until SAY_JS."""
SAY_JS = "([name, loudness]) => { window.voices[name].gain.value = loudness; }"


class Crowd:
    """People in rooms of one company of a server."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self._server = server
        self.key = server.company(f"Crowd {next(_numbers)}")
        self.context = browser.new_context()
        self.page: Page = self.context.new_page()
        self.page.goto(f"{server.url}/docs.html")
        self.page.evaluate(DRAW_JS)

    def token(self, room: str, name: str, **more: Any) -> str:
        """A token for one person; `more` as in the REST API."""
        body = {"room_id": room, "user_name": name, "duration": 600} | more
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self._server.url}/api/v1/tokens", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked, timeout=5) as answer:
            token: str = json.load(answer)["token"]
        return token

    def join(self, room: str, names: list[str], *, no_camera: tuple[int, ...] = (), **more: bool | int) -> None:
        """Lets people in and waits until they send. `no_camera` are indices; `more`: screen, sound for all of them, the
        height of their pictures."""
        listeners = {"permissions": {"subscribe": False}}
        people = [
            {"name": name, "token": self.token(room, name, **listeners), "camera": index not in no_camera} | more
            for index, name in enumerate(names)
        ]
        for first in range(0, len(people), AT_ONCE):
            self.page.evaluate(_JOIN_JS, people[first : first + AT_ONCE])
            some = names[first : first + AT_ONCE]
            eventually(lambda some=some: self.connected(some) == len(some), f"{len(some)} are in {room}", 40)  # type: ignore[misc]

    def watch(self, room: str, names: list[str]) -> None:
        """Lets people in who may send nothing; they receive nothing either."""
        permissions = {"publish": False, "subscribe": False}
        self.page.evaluate(
            _JOIN_JS, [{"name": name, "token": self.token(room, name, permissions=permissions)} for name in names]
        )

    def knock(self, room: str, names: list[str]) -> None:
        """Sends people to the door of a room with a lobby; they wait there, without a camera."""
        self.page.evaluate(_JOIN_JS, [{"name": name, "token": self.token(room, name)} for name in names])

    def connected(self, names: list[str]) -> int:
        script = "(names) => names.filter((name) => window.crowd.get(name)?.connected).length"
        found: int = self.page.evaluate(script, names)
        return found

    def leave(self) -> None:
        """Everybody goes, and nothing is drawn any more."""
        self.page.evaluate(
            "for (const room of window.crowd?.values() ?? []) room.leave(); window.crowd?.clear(); window.over()"
        )
