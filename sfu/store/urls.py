"""URLs of databases."""

from __future__ import annotations

from databases.core import DatabaseURL

from sfu.errors import ConfigError


def parse_url(url: str) -> DatabaseURL:
    """Raises ConfigError if the URL is for neither engine. Its message does not contain the URL."""
    try:
        parsed = DatabaseURL(url)
        scheme, name = parsed.scheme, parsed.database
        _ = parsed.port
    except ValueError:
        raise ConfigError("SFU_DATABASE_URL is not a URL.") from None
    if scheme == "sqlite" and name and ":memory:" not in name:
        return parsed
    if scheme in ("postgresql", "postgres") and name:
        return parsed
    raise ConfigError(
        "SFU_DATABASE_URL must be sqlite:///relative/file.db, sqlite:////absolute/file.db or "
        "postgresql://user:password@host:5432/name."
    )
