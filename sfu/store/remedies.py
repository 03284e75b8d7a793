"""What to do about a PostgreSQL that lets nobody in, by the cause of the error. Pure."""

from __future__ import annotations

import socket
import ssl

_BY_STATE = {
    "28P01": "Correct the password in the URL, or set the role's with ALTER ROLE … PASSWORD.",
    "28000": "Make the role (CREATE ROLE … LOGIN PASSWORD …), or name another one in the URL.",
    "3D000": "Make the database (CREATE DATABASE … OWNER …), or name another one in the URL.",
    "42501": "Let the role use the database and its tables (ALTER DATABASE … OWNER TO …, GRANT …).",
    "53300": "Raise max_connections of PostgreSQL or the role's CONNECTION LIMIT: a server holds up to 10 connections.",
    "57P03": "PostgreSQL is starting or stopping: try again once it accepts connections.",
}
"""Remedies by SQLSTATE (PostgreSQL, appendix A)."""
_HBA = "Add a line for this role, database and address to pg_hba.conf, and reload PostgreSQL."
_TLS = "Turn on `ssl` in postgresql.conf with a certificate that this machine trusts, or change `ssl` in the URL."
_ROUTE = "Start PostgreSQL and let it listen there (listen_addresses), or correct host and port in the URL."


def remedy(error: BaseException | None) -> str:
    """A sentence for the operator; empty for an error that says nothing of the cause."""
    state = str(getattr(error, "sqlstate", None) or "")
    if "pg_hba.conf" in str(error):
        return _HBA
    if state in _BY_STATE:
        return _BY_STATE[state]
    if isinstance(error, ssl.SSLError) or "SSL" in str(error):
        return _TLS
    if isinstance(error, socket.gaierror):
        return "Correct the host in the URL: it has no address."
    return _ROUTE if isinstance(error, (ConnectionRefusedError, ConnectionResetError)) else ""
