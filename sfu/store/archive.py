"""The file of `sfu backup`: a tar archive with the tables, the shared files and the sealed server key.

    manifest.json                   Manifest: what made it, the schema, and the server key, sealed by the passphrase
    tables/NNNNNN-NAME.json.gz      a page of rows: a JSON array of rows, each an array of values (sfu.store.bulk)
    files/ID                        a shared file
    end.json                        counts, and a MAC (HMAC-SHA256) of all bytes before this member

The passphrase makes two keys (scrypt, RFC 7914): one seals the server key (AES-256-GCM), one makes the MAC. So a file
that is damaged, cut off or altered is told from a whole one. Nothing is held in memory but a page of rows.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import re
import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sfu.errors import ConfigError
from sfu.tenancy.keys import KEY_BYTES, Secret

FORMAT = 1
"""The version of the format. A release reads this one and those before."""
MANIFEST, END = "manifest.json", "end.json"
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**16, 8, 1
"""Cost of a guess at the passphrase: 64 MB of memory and a quarter of a second."""
PIECE_BYTES = 1 << 20
LONG_BYTES, PAGE_BYTES = 1 << 25, 1 << 28
"""A page of rows is split above the first, and refused above the second."""
GZIP_LEVEL = 3
"""Twice as fast as the usual 6, for a tenth more bytes."""
SMALL_BYTES = 1 << 20
"""Most bytes of the manifest and of end.json."""

Values = Sequence[Any]
Progress = Callable[[int], None]
"""Is told how many more bytes or rows are done."""

_PAGE = re.compile(r"tables/[0-9]{6,}-([a-z_]{1,60})\.json\.gz")
_FILE = re.compile(r"files/([0-9a-f-]{36})")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The beginning of a backup. `made_at` is ISO 8601 in UTC. `schema` are the steps of the database, by number and
    title. `columns` has the columns of each table, in the order in which tables are filled."""

    sfu: str
    made_at: str
    schema: list[tuple[int, str]]
    columns: dict[str, list[str]]


@dataclass(slots=True)
class Counts:
    """What a backup contains: rows by table, files and their bytes."""

    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
    file_bytes: int = 0

    def add(self, table: str, count: int) -> None:
        self.rows[table] = self.rows.get(table, 0) + count


class Writer:
    """Writes a backup to a file that is open for writing. Raises OSError."""

    def __init__(self, file: IO[bytes], manifest: Manifest, server_key: Secret[bytes], passphrase: Secret[str]) -> None:
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        seal, mac = _keys(passphrase, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
        self._out = _Hashed(file, hmac.new(mac, digestmod=hashlib.sha256))
        self._tar = tarfile.TarFile(fileobj=cast("IO[bytes]", self._out), mode="w")
        self._pages = 0
        self.counts = Counts()
        sealed = {
            "kdf": "scrypt",
            "n": SCRYPT_N,
            "r": SCRYPT_R,
            "p": SCRYPT_P,
            "salt": _text(salt),
            "cipher": "AES-256-GCM",
            "nonce": _text(nonce),
            "sealed": _text(AESGCM(seal).encrypt(nonce, server_key.reveal(), b"server key")),
        }
        self._add(MANIFEST, _json({"format": FORMAT, **asdict(manifest), "server_key": sealed}))

    def rows(self, table: str, rows: Sequence[Values]) -> None:
        """Adds a page of rows, or several if their values are very long."""
        text = _json(rows)
        if len(text) > LONG_BYTES and len(rows) > 1:
            half = len(rows) // 2
            self.rows(table, rows[:half])
            self.rows(table, rows[half:])
            return
        self._pages += 1
        self._add(f"tables/{self._pages:06}-{table}.json.gz", gzip.compress(text, GZIP_LEVEL, mtime=0))
        self.counts.add(table, len(rows))

    def file(self, file_id: str, path: Path, progress: Progress) -> bool:
        """Adds a shared file. False if it does not exist, for example because it has just expired."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False
        with file:
            info = self._tar.gettarinfo(fileobj=file)
            self._tar.addfile(_plain(f"files/{file_id}", info.size), _Told(file, progress))
        _forget(self._tar)
        self.counts.files += 1
        self.counts.file_bytes += info.size
        return True

    def finish(self) -> None:
        """Completes the archive. Without this it counts as incomplete."""
        mac = self._out.mac.hexdigest()
        self._add(END, _json({**asdict(self.counts), "mac": mac}))
        self._tar.close()

    def _add(self, name: str, content: bytes) -> None:
        self._tar.addfile(_plain(name, len(content)), BytesIO(content))
        _forget(self._tar)


class Archive:
    """A backup that is open for reading. Raises ConfigError if it is none, or not whole."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        content = self._manifest()
        self._sealed = content.pop("server_key")
        schema = [(int(number), str(title)) for number, title in content["schema"]]
        self.manifest = Manifest(content["sfu"], content["made_at"], schema, content["columns"])
        self._mac = b""

    def unseal(self, passphrase: Secret[str]) -> Secret[bytes]:
        """The server key. Raises ConfigError for another passphrase."""
        try:
            cost = [int(self._sealed[name]) for name in "nrp"]
            if not (0 < cost[0] <= 2**20 and 0 < cost[1] <= 16 and 0 < cost[2] <= 16):
                raise self._damaged("its passphrase would take too long to check")
            seal, self._mac = _keys(passphrase, _bytes(self._sealed["salt"]), *cost)
            raw = AESGCM(seal).decrypt(_bytes(self._sealed["nonce"]), _bytes(self._sealed["sealed"]), b"server key")
        except InvalidTag:
            raise ConfigError(f"This is not the passphrase of the backup {self._name}.") from None
        except (KeyError, TypeError, ValueError):
            raise self._damaged("its server key is not readable") from None
        if len(raw) != KEY_BYTES:
            raise self._damaged("its server key is not readable")
        return Secret(raw)

    def check(self, progress: Progress) -> Counts:
        """Reads everything, and compares it with the counts and the MAC at the end. After `unseal`."""
        found, end = Counts(), None
        for info, file in self._members():
            if end is not None:
                raise self._damaged("something follows its end")
            if info.name == END:
                end = info.offset, self._object(file)
            elif page := _PAGE.fullmatch(info.name):
                found.add(page[1], len(self._page(page[1], file)))
            elif _FILE.fullmatch(info.name):
                found.files += 1
                found.file_bytes += info.size
            elif info.name != MANIFEST:
                raise self._damaged(f"it contains {info.name[:100]!r}")
            progress(info.size)
        if end is None:
            raise self._damaged("its end is missing")
        if not hmac.compare_digest(str(end[1].get("mac")), self._digest(end[0], progress)):
            raise self._damaged("it was altered, or its medium is faulty")
        if {name: value for name, value in end[1].items() if name != "mac"} != asdict(found):
            raise self._damaged("something is missing")
        return found

    def size(self) -> int:
        """How many bytes `check` reads in all."""
        return 2 * self._file.seek(0, 2)

    def rows(self) -> Iterator[tuple[str, list[Values]]]:
        """Each page of rows with its table, in the order in which tables are filled."""
        for info, file in self._members():
            if page := _PAGE.fullmatch(info.name):
                yield page[1], self._page(page[1], file)

    def files(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        """Each shared file: its id, its size in bytes, and its content, to be read before the next one."""
        for info, file in self._members():
            if found := _FILE.fullmatch(info.name):
                yield found[1], info.size, file

    def _manifest(self) -> dict[str, Any]:
        try:
            info, file = next(self._members())
        except StopIteration:
            raise self._damaged("it is empty") from None
        if info.name != MANIFEST:
            raise ConfigError(f"{self._name} is not a backup made by `sfu backup`.")
        content = self._object(file)
        if content.get("format") != FORMAT:
            raise ConfigError(
                f"The backup {self._name} has format {content.get('format')!r}, which this release does not know. "
                f"Restore it with the release that made it, {content.get('sfu')!r}, or a newer one."
            )
        if content.keys() != {"format", "sfu", "made_at", "schema", "columns", "server_key"}:
            raise self._damaged("its beginning is not readable")
        return content

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    file = tar.extractfile(info) if info.isreg() else None
                    if file is None:
                        raise self._damaged(f"{info.name[:100]!r} in it is not a file")
                    yield info, file
                    _forget(tar)
        except (tarfile.TarError, EOFError) as error:
            raise self._damaged(str(error)) from None

    def _page(self, table: str, file: IO[bytes]) -> list[Values]:
        columns = self.manifest.columns.get(table)
        try:
            with gzip.GzipFile(fileobj=file) as packed:
                text = packed.read(PAGE_BYTES + 1)
            rows = json.loads(text) if len(text) <= PAGE_BYTES else None
        except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, zlib.error):
            rows = None
        if columns is None or not isinstance(rows, list):
            raise self._damaged(f"rows of the table {table} are not readable")
        if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
            raise self._damaged(f"rows of the table {table} have other columns")
        return rows

    def _digest(self, length: int, progress: Progress) -> str:
        """The MAC of the first bytes."""
        mac, left = hmac.new(self._mac, digestmod=hashlib.sha256), length
        self._file.seek(0)
        while left and (piece := self._file.read(min(left, PIECE_BYTES))):
            mac.update(piece)
            left -= len(piece)
            progress(len(piece))
        return mac.hexdigest()

    def _object(self, file: IO[bytes]) -> dict[str, Any]:
        try:
            content = json.loads(file.read(SMALL_BYTES))
        except (tarfile.TarError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise self._damaged("a part of it is not readable")
        return content

    def _damaged(self, why: str) -> ConfigError:
        return ConfigError(f"The backup {self._name} is incomplete or damaged: {why}. Use another one.")


class _Hashed:
    """A file to write to that computes the MAC of what is written."""

    def __init__(self, file: IO[bytes], mac: hmac.HMAC) -> None:
        self._file, self.mac, self._at = file, mac, 0

    def write(self, data: bytes) -> int:
        self.mac.update(data)
        self._at += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._at


class _Told:
    """A file to read from that says how much was read."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file, self._progress = file, progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._progress(len(data))
        return data


def _forget(tar: tarfile.TarFile) -> None:
    """Drops the list of members, which tarfile would keep until the end."""
    tar.members = []  # type: ignore[attr-defined]


def _plain(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


def _keys(passphrase: Secret[str], salt: bytes, n: int, r: int, p: int) -> tuple[bytes, bytes]:
    """The keys of the seal and of the MAC."""
    text = passphrase.reveal().encode("utf-8", "surrogateescape")
    both = Scrypt(salt=salt, length=64, n=n, r=r, p=p).derive(text)
    return both[:32], both[32:]


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
