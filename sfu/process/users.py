"""Users of this machine: their names, and who runs this command."""

from __future__ import annotations

import getpass
import os
import pwd


def name_of(uid: int) -> str:
    """The name of a user; the number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def caller() -> str:
    """The user of this command; under sudo, the one that called it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return str(os.getuid())


def caller_address() -> str:
    """The address that this shell's ssh connection comes from, if sshd says so."""
    return os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
