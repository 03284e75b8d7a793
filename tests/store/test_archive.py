"""The file of a backup: what is written comes back, and what is damaged, altered or of others is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sfu.errors import ConfigError
from sfu.store import archive
from sfu.store.archive import Archive, Manifest, Writer
from sfu.tenancy.keys import Secret

KEY, PASSPHRASE = Secret(bytes(range(32))), Secret("correct horse")
MANIFEST = Manifest("1.2.3", "2025-10-21T17:21:27+00:00", [(1, "companies")], {"companies": ["id", "name"]})
ROWS = [["a", "Zoë 👩\u200d👧"], ["b", None]]
FILE_ID = "0f4a8f1e-0000-4000-8000-00000000beef"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SCRYPT_N", 2)


def ignore(_count: int) -> None:
    """Progress that nobody wants to see."""


def made(tmp_path: Path) -> bytes:
    out = io.BytesIO()
    writer = Writer(out, MANIFEST, KEY, PASSPHRASE)
    writer.rows("companies", ROWS)
    writer.rows("companies", [["c", "third"]])
    (tmp_path / "shared").write_bytes(b"content" * 500)
    read: list[int] = []
    assert writer.file(FILE_ID, tmp_path / "shared", read.append)
    assert sum(read) == 3500
    assert not writer.file(FILE_ID, tmp_path / "gone", read.append)
    writer.finish()
    return out.getvalue()


def opened(data: bytes, passphrase: Secret[str] = PASSPHRASE) -> Archive:
    found = Archive(io.BytesIO(data), "b.tar")
    assert found.unseal(passphrase).reveal() == KEY.reveal()
    return found


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    data = made(tmp_path)
    found, read = opened(data), list[int]()
    assert found.manifest == MANIFEST
    counts = found.check(read.append)
    assert (counts.rows, counts.files, counts.file_bytes) == ({"companies": 3}, 1, 3500)
    assert sum(read) <= found.size()
    assert list(found.rows()) == [("companies", ROWS), ("companies", [["c", "third"]])]
    assert [(name, size, file.read()) for name, size, file in found.files()] == [(FILE_ID, 3500, b"content" * 500)]


def test_the_key_is_sealed_and_any_tar_shows_the_rest(tmp_path: Path) -> None:
    data = made(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(info.name, info.mode) for info in tar] == [
            (name, 0o600)
            for name in (
                "manifest.json",
                "tables/000001-companies.json.gz",
                "tables/000002-companies.json.gz",
                f"files/{FILE_ID}",
                "end.json",
            )
        ]
    assert KEY.reveal() not in data
    with pytest.raises(ConfigError, match=r"This is not the passphrase of the backup b\.tar\."):
        opened(data, Secret("wrong horse"))


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    data = made(tmp_path)
    end = data.index(b"end.json")
    content = range(end + 512, data.index(b"}\0", end), 7)  # behind it is padding
    for at in (*range(0, end, 61), *content):
        changed = bytearray(data)
        changed[at] ^= 0x55
        with pytest.raises(ConfigError, match=r"incomplete or damaged|not a backup|has format|not the passphrase"):
            opened(bytes(changed)).check(ignore)


def test_a_file_that_is_cut_off_is_noticed(tmp_path: Path) -> None:
    data = made(tmp_path)
    for length in (*range(0, data.index(b"end.json"), 512), data.index(b"end.json") + 512):
        with pytest.raises(ConfigError, match="incomplete or damaged"):
            opened(data[:length]).check(ignore)


def rewritten(data: bytes, change: Any) -> bytes:
    """The archive with changed members, as somebody without the passphrase could make it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for info in old:
            file = old.extractfile(info)
            assert file is not None
            for name, content in change(info.name, file.read()):
                changed = tarfile.TarInfo(name)
                changed.size = len(content)
                new.addfile(changed, io.BytesIO(content))
    return out.getvalue()


def swapped(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content[::-1] if name.startswith("files/") else content)]


def dropped(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [] if name.startswith("tables/000002") else [(name, content)]


def more(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content), *([("../../etc/passwd", b"root")] if name == "manifest.json" else [])]


def behind(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content), *([(f"files/{FILE_ID}", b"x")] if name == "end.json" else [])]


def costly(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content.replace(b'"n":2', b'"n":2147483648'))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, "altered"),
        (dropped, "altered"),
        (more, "it contains '../../etc/passwd'"),
        (behind, "something follows its end"),
        (costly, "take too long"),
    ],
)
def test_an_altered_file_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        opened(rewritten(made(tmp_path), change)).check(ignore)


def test_a_newer_format_and_other_files_are_refused(tmp_path: Path) -> None:
    def newer(name: str, content: bytes) -> list[tuple[str, bytes]]:
        fields = json.loads(content) if name == "manifest.json" else {}
        return [(name, json.dumps(fields | {"format": 2}).encode() if fields else content)]

    with pytest.raises(ConfigError, match=r"has format 2, which this release does not know.*'1\.2\.3', or a newer one"):
        Archive(io.BytesIO(rewritten(made(tmp_path), newer)), "b.tar")
    with pytest.raises(ConfigError, match="is not a backup made by `sfu backup`"):
        Archive(io.BytesIO(rewritten(made(tmp_path), lambda name, content: [(f"x{name}", content)])), "b.tar")
    for other in (b"", b"SQLite format 3\0" * 100):
        with pytest.raises(ConfigError, match="incomplete or damaged"):
            Archive(io.BytesIO(other), "b.tar")


def test_long_rows_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LONG_BYTES", 100)
    out = io.BytesIO()
    writer = Writer(out, MANIFEST, KEY, PASSPHRASE)
    rows = [[str(number), "x" * 60] for number in range(5)]
    writer.rows("companies", rows)
    writer.finish()
    found = opened(out.getvalue())
    assert found.check(ignore).rows == {"companies": 5}
    assert [row for _, page in found.rows() for row in page] == rows
    assert len(list(found.rows())) == 5
