"""Files on the disk: what they are called, what fits, and that nothing is left of what does not."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sfu.calls.files import NAME_CHARACTERS, Folder, Read, clean_file_name, clean_type
from sfu.refusals import FilesFull, FileTooLarge


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("photo.png", "photo.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\report.pdf", "report.pdf"),
        ("..", "file"),
        ("", "file"),
        (" .bashrc", "bashrc"),
        ("cafe\u0301.txt", "café.txt"),
        ("exe.\u202egpj", "exe.gpj"),
        ("a\r\nSet-Cookie: x", "a Set-Cookie_ x"),
        ('say "hi"?.txt', "say _hi__.txt"),
        ("x" * 300 + ".tar.gz", "x" * (NAME_CHARACTERS - 3) + ".gz"),
        ("日本語.md", "日本語.md"),
        ("می\u200cخواهم 👩\u200d👧.pdf", "می\u200cخواهم 👩\u200d👧.pdf"),
    ],
)
def test_a_name_is_cleaned(text: str, name: str) -> None:
    assert clean_file_name(text) == name


@given(st.text(max_size=400))
def test_a_clean_name_is_no_path_and_stays_clean(text: str) -> None:
    name = clean_file_name(text)
    assert 1 <= len(name) <= NAME_CHARACTERS
    assert not set(name) & set('/\\<>:"|?*\r\n\0')
    assert name not in (".", "..")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("image/png", "image/png"),
        ("Text/HTML; charset=utf-8", "text/html"),
        ("", "application/octet-stream"),
        ("x", "application/octet-stream"),
        ("a/b\r\nX: y", "application/octet-stream"),
        ("a/" + "b" * 200, "application/octet-stream"),
    ],
)
def test_a_type_is_cleaned(text: str, kind: str) -> None:
    assert clean_type(text) == kind


def pieces(*found: bytes) -> Read:
    left = [*found, b""]

    async def read() -> bytes:
        return left.pop(0)

    return read


async def nobody(_ids: Sequence[str]) -> set[str]:
    return set()


async def test_a_file_is_written_as_it_comes(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "files", 1000)
    await folder.open()
    file_id, size = await folder.receive(pieces(b"hello ", b"world"), 11, 5)
    path = folder.path(file_id)
    assert path is not None
    assert (path.read_bytes(), size) == (b"hello world", 11)
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.path("../" + file_id) is None
    assert folder.path(str(uuid.uuid4())) is None
    await folder.remove(file_id)
    assert folder.path(file_id) is None
    await folder.remove(file_id)


async def test_nothing_is_left_of_what_does_not_fit(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 20)
    await folder.open()
    with pytest.raises(FileTooLarge):
        await folder.receive(pieces(b"12345", b"67890"), 9, 5)
    await folder.receive(pieces(b"x" * 15), 15, 5)
    with pytest.raises(FilesFull):
        await folder.receive(pieces(b"x" * 5, b"y"), 10, 5)

    def endless() -> Read:
        once = pieces(b"x")

        async def read() -> bytes:
            return await once() or await trio.sleep_forever()

        return read

    with pytest.raises(trio.TooSlowError):
        await folder.receive(endless(), 10, 0.01)
    with trio.move_on_after(0.01):
        await folder.receive(endless(), 10, 5)
    assert len(os.listdir(tmp_path)) == 1
    await folder.receive(pieces(b"x" * 5), 5, 5)


async def test_what_is_there_counts_after_a_restart(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 20)
    await folder.open()
    await folder.receive(pieces(b"x" * 15), 15, 5)
    (tmp_path / "abc.part").write_bytes(b"half a file")
    again = Folder(tmp_path, 20)
    await again.open()
    with pytest.raises(FilesFull):
        await again.receive(pieces(b"x" * 6), 15, 5)
    await again.receive(pieces(b"x" * 5), 15, 5)


async def test_the_sweep_notices_what_others_deleted(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 20)
    await folder.open()
    first, _ = await folder.receive(pieces(b"x" * 15), 15, 5)
    (tmp_path / first).unlink()
    with pytest.raises(FilesFull):
        await folder.receive(pieces(b"y" * 10), 15, 5)
    assert await folder.sweep(nobody) == 0
    await folder.receive(pieces(b"y" * 15), 15, 5)
    with pytest.raises(FilesFull):
        await folder.receive(pieces(b"y" * 6), 15, 5)


async def test_the_sweep_takes_what_nobody_knows_and_is_not_young(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 100)
    await folder.open()
    known, old, young = [(await folder.receive(pieces(b"x"), 1, 5))[0] for _ in range(3)]
    for file_id in (known, old):
        os.utime(tmp_path / file_id, (0, 0))
    (tmp_path / "notes.txt").write_text("somebody else's")
    os.utime(tmp_path / "notes.txt", (0, 0))

    async def asked(ids: Sequence[str]) -> set[str]:
        assert list(ids) == sorted([known, old])
        return {known}

    assert await folder.sweep(asked) == 1
    assert sorted(os.listdir(tmp_path)) == sorted([known, young, "notes.txt"])
    assert await folder.sweep(nobody) == 1
