"""A process that stands in for one that forkserver.py forks, where a program is to be started by its command.

`python -I -S stand_in.py SOCKET PROGRAM ARGUMENT …` imports only what is built into Python, which takes a tenth of the
time that imports take. The process has its files; it ends as that process does, which ends when this is killed.
"""

import _signal
import _socket
import marshal
import posix
import sys

NUMBER_BYTES = 4


def main() -> None:
    path, program, *arguments = sys.argv[1:]
    environment = {name.decode(): value.decode() for name, value in posix.environ.items()}
    files = [int(name) for name in posix.listdir("/dev/fd")]
    connection = _socket.socket(_socket.AF_UNIX)  # has a number that the list had, too, while it was being read
    files.remove(connection.fileno())
    connection.connect(path)
    content = marshal.dumps((program, arguments, environment, posix.getcwd(), files))
    numbers = b"".join(file.to_bytes(NUMBER_BYTES, sys.byteorder) for file in files)
    size = len(content).to_bytes(NUMBER_BYTES, sys.byteorder)
    connection.sendmsg([size], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
    connection.sendall(content)
    pid = number(connection)
    for file in files:
        if file > 2:
            posix.close(file)
    _signal.signal(_signal.SIGTERM, lambda *_: posix.kill(pid, _signal.SIGTERM))
    status = number(connection)
    if status < 0:
        if status == -_signal.SIGTERM:
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        posix.kill(posix.getpid(), -status)
    posix._exit(status)


def number(connection: _socket.socket) -> int:
    return int.from_bytes(connection.recv(NUMBER_BYTES), sys.byteorder, signed=True)


main()
