"""File sharing: POST /files stores a file and announces it in the sender's chat, GET /files/… downloads it.

Senders authenticate with the secret of their session. Anybody who knows the address of a file, which only the room is
told, may download it. Uploads are written to disk as they arrive.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import cast
from urllib.parse import quote, unquote

import trio
from quart import Blueprint, Response, request

from sfu.calls.chat import file_info
from sfu.calls.files import OCTETS, Folder, clean_file_name, clean_type
from sfu.calls.registry import Calls, Seat, author_of
from sfu.calls.rooms import is_secret
from sfu.calls.transfers import Place, Transfers, longest_s
from sfu.errors import BadRequest, ConfigError, NotAllowed, SfuError
from sfu.limits.rates import Rate, place
from sfu.logs import line, quoted
from sfu.process.background import repeat
from sfu.refusals import FileLate, FileNotFound, FilesFull, FilesOff, FileTooLarge, QuotaExceeded, SessionUnknown
from sfu.store.records import File
from sfu.web.bodies import PacedBody

SWEEP_S = 60.0
UPLOADS, DOWNLOADS = 16, 64
"""Most transfers at the same time. Each has a file open."""
UPLOADS_OF_ONE, UPLOADS_FROM_ONE, DOWNLOADS_TO_ONE = 2, 4, 16
"""Of these, one session and one address may have this many at most."""
PIECE_BYTES = 1 << 16
FILES, FILES_S = 20, 60.0
"""Most uploads from one address in FILES_S."""
SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/", "text/plain", "application/pdf")
"""Media types that are served as uploaded, since browsers execute nothing in them. Others are served as OCTETS."""
HEADERS = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cross-Origin-Resource-Policy": "same-origin"}
_ENCODED = re.compile("(?:[^%?]|%[0-9A-Fa-f]{2})*")
"""A percent-encoded name. It has no `?`: the bytes that are not ASCII arrive as one (TO_ASCII of sfu.web.http1)."""

log = logging.getLogger("sfu.sharing")


class Sharing:
    def __init__(self, hub: Calls, folder: Path) -> None:
        config = hub.config
        self._hub, self._config, self._store = hub, config, hub.admission.store
        self._folder = Folder(folder, config.files_bytes)
        self._rate = Rate(FILES, FILES_S, trio.current_time)
        self._uploads, self._downloads = Transfers(UPLOADS), Transfers(DOWNLOADS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deletes files without a database row, until cancelled. Raises ConfigError if the folder cannot be used."""
        try:
            await self._folder.open()
        except OSError as error:
            raise ConfigError(f"SFU_DATA_DIR: shared files cannot be stored there: {error}.") from None
        task_status.started()
        await repeat("files", self._sweep, SWEEP_S, self._hub.counters)

    async def _sweep(self) -> None:
        if count := await self._folder.sweep(self._store.files.known):
            log.info("files_deleted=%d", count)

    def routes(self) -> Blueprint:
        files = Blueprint("files", __name__)
        files.add_url_rule("/files", "send", self._send, methods=["POST"], provide_automatic_options=False)
        files.add_url_rule("/files/<file_id>", "fetch", self._fetch, methods=["GET"], provide_automatic_options=False)
        return files

    async def _send(self) -> Response:
        session = self._hub.session_of(_secret())
        try:
            return await self._receive(self._entitled(session))
        except SfuError as error:
            self._tell(error, session)
            raise

    def _tell(self, error: SfuError, session: Seat | None, **more: str) -> None:
        """Writes a refusal to the log."""
        who = (
            {}
            if session is None
            else {
                "room": session.entry.key,
                "name": session.peer.name,
                "peer": session.peer.id,
                "session": session.record.id,
            }
        )
        self._hub.refused.tell(log, error, request.remote_addr or "", **who, **more)

    async def _receive(self, session: Seat) -> Response:
        """Stores a file and tells everybody in the room."""
        upload = await self._place(self._uploads, {_address(): UPLOADS_FROM_ONE, session.peer.id: UPLOADS_OF_ONE})
        try:
            file = await self._store_file(session, cast("PacedBody", request.body))
        except trio.TooSlowError:
            raise FileLate from None
        except OSError as error:
            log.error("%s", line("file_not_written", **session.who, error=quoted(str(error))))
            raise FilesFull("The server cannot store the file.") from None
        finally:
            upload.give_back()
        if self._hub.session_of(session.peer.secret) is not session:
            await self._folder.remove(file.id)  # nobody was told of it; its row is deleted when it expires
            raise SessionUnknown("You have left the call.")
        self._hub.deliver(self._hub.chat.share(session.peer, file))
        body = json.dumps(asdict(file_info(file)), ensure_ascii=False) + "\n"
        return Response(body, 201, {"Location": f"files/{file.id}"}, content_type="application/json")

    async def _place(self, transfers: Transfers, shares: dict[str, int]) -> Place:
        return await transfers.place(shares if self._config.limits else {})

    def _entitled(self, session: Seat | None) -> Seat:
        """The session, if it may share files.

        Raises SessionUnknown, NotAllowed, FilesOff, TooManyFailures or TooManyRequests.
        """
        address = request.remote_addr or ""
        if session is None:
            if self._hub.failures is not None and is_secret(_secret()):
                self._hub.failures.take(address)
            raise SessionUnknown
        if not session.peer.permissions.chat:
            raise NotAllowed("You may not write in the chat.")
        if not (session.peer.room.state.files and self._config.file_bytes):
            raise FilesOff
        if self._config.limits:
            self._rate.take(address)
        return session

    async def _store_file(self, session: Seat, body: PacedBody) -> File:
        """Stores the file on disk and in the database. If it raises, the file is in neither."""
        name = clean_file_name(_decoded(request.headers.get("X-File-Name", "")))
        most = await self._store.tiers.file_bytes(session.entry.company_id)
        allowed = self._config.file_bytes if most is None else min(most, self._config.file_bytes)
        try:
            file_id, size = await self._folder.receive(body.read, allowed, self._config.send_s)
        except FileTooLarge:
            if allowed == most:
                raise QuotaExceeded("file_bytes", allowed) from None
            raise
        try:
            file = File(file_id, name, clean_type(request.headers.get("Content-Type", "")), size)
            author, limit_bytes = author_of(session), self._config.room_files_bytes
            await self._store.files.add(session.peer.room.id, file, author, limit_bytes=limit_bytes)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._folder.remove(file_id)
            raise
        return file

    async def _fetch(self, file_id: str) -> Response:
        try:
            return await self._download(file_id)
        except SfuError as error:
            self._tell(error, None)
            raise

    async def _download(self, file_id: str) -> Response:
        file = await self._store.files.get(file_id)
        path = self._folder.path(file_id)
        if file is None or path is None:
            raise FileNotFound
        download = await self._place(self._downloads, {_address(): DOWNLOADS_TO_ONE})
        response = Response(_pieces(path, download), 200, HEADERS, content_type=_shown(file.type))
        response.timeout = longest_s(file.size)
        response.headers["Content-Length"] = str(file.size)
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(file.name, safe='')}"
        response.headers["Cache-Control"] = "private, no-cache"
        return response


async def _pieces(path: Path, download: Place) -> AsyncIterator[bytes]:
    """The file. `download` is given back at its end, or with this generator if it never runs."""
    try:
        file = await trio.open_file(path, "rb")
        try:  # `async with file` leaves it open if it is cancelled at its beginning
            while piece := await file.read(PIECE_BYTES):
                yield piece
        finally:
            await file.aclose()
    finally:
        download.give_back()


def _decoded(name: str) -> str:
    """The name that a header has in percent-encoded UTF-8. Raises BadRequest for what would become another name."""
    try:
        if _ENCODED.fullmatch(name):
            return unquote(name, errors="strict")
    except UnicodeDecodeError:
        pass
    raise BadRequest("X-File-Name is not percent-encoded UTF-8, such as caf%C3%A9.png.")


def _secret() -> str:
    """The secret of a session that came with the request; empty if there is none."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _address() -> str:
    return place(request.remote_addr or "")


def _shown(kind: str) -> str:
    return kind if kind.startswith(SHOWN) else OCTETS
