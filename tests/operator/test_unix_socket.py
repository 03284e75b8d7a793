"""The socket of commands: who may connect, and that a server takes a dead one's place and never a running one's."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest
import trio

from sfu.errors import ConfigError
from sfu.operator.unix_socket import NoServer, connect, listening

ROOT = os.geteuid() == 0
NOBODY = 65534


async def served(path: Path) -> bool:
    """Whether the listener at the path answers."""
    async with connect(path) as stream:
        return bool(await stream.receive_some(1) == b"!")


async def answer(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(b"!")


@pytest.mark.parametrize("folder", ["data", "x" * 120 + "/" + "y" * 120])
async def test_it_listens_for_its_user_and_leaves_nothing(folder: str, tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / folder / "control.sock"
    mask = os.umask(0)
    try:
        with listening(path, 4) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert os.umask(0) == 0
            nursery.start_soon(trio.serve_listeners, answer, [listener])
            assert await served(path)
            nursery.cancel_scope.cancel()
    finally:
        os.umask(mask)
    assert not path.exists()


async def test_a_dead_servers_socket_is_replaced(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with pytest.raises(NoServer, match=rf"nothing listens at {path}\. .*SFU_DATA_DIR"):
        connect(path)
    with listening(path, 4) as listener:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        assert await served(path)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_running_servers_socket_is_not_taken(tmp_path: Path, hangs: bool) -> None:
    path = tmp_path / "control.sock"
    waiting: list[socket.socket] = []
    with listening(path, 1):
        while hangs and len(waiting) < 50:  # until the queue is full
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(str(path))
            except BlockingIOError:
                break
        if hangs:
            with pytest.raises(ConfigError, match="hangs: it accepts no more connections"):
                connect(path)
        before = path.stat().st_ino
        with pytest.raises(OSError, match="another server uses this folder"), listening(path, 1):
            pass
        assert path.stat().st_ino == before
        for one in waiting:
            one.close()


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("a file of somebody's")
    with pytest.raises(OSError, match="It is no socket: remove it"), listening(path, 1):
        pass
    with pytest.raises(NoServer):
        connect(path)
    assert path.read_text() == "a file of somebody's"


async def test_another_servers_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with listening(path, 1):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


def test_no_folder_is_no_server(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "control.sock", Path(__file__) / "control.sock"):
        with pytest.raises(NoServer):
            connect(path)


def open_folders(tmp_path: Path) -> None:
    """Lets other users look into the test's folder."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            return
        folder.chmod(0o755)


@pytest.mark.skipif(not ROOT, reason="only root can be another user")
@pytest.mark.parametrize(("mode", "words"), [(0o755, "runs as another user, root. Run"), (0o700, "has no access to")])
async def test_another_user_is_told_to_use_sudo(tmp_path: Path, mode: int, words: str) -> None:
    path = tmp_path / "data" / "control.sock"
    open_folders(tmp_path)
    with listening(path, 1):
        path.parent.chmod(mode)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(ConfigError, match=words) as refused:
                connect(path)
            with socket.socket(socket.AF_UNIX) as sock, pytest.raises(PermissionError):
                sock.connect(str(path))
        finally:
            os.seteuid(0)
    assert not isinstance(refused.value, NoServer)
    assert "sudo" in str(refused.value)
