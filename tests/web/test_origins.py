from __future__ import annotations

import pytest

from sfu.errors import OriginNotAllowed
from sfu.web.origins import check_origin
from sfu.web.streams import Upgraded


@pytest.mark.parametrize(
    ("origin", "secure", "host", "advice"),
    [
        ("https://rooms.example", False, "rooms.example", "name it in SFU_TRUSTED_PROXIES"),
        ("https://rooms.example:8443", False, "rooms.example:8443", "name it in SFU_TRUSTED_PROXIES"),
        ("https://rooms.example:8443", True, "rooms.example", "pass on Host with its port"),
        ("https://rooms.example", True, "127.0.0.1:8080", "must pass on Host"),
        ("https://other.example", True, "rooms.example", "SFU_ALLOWED_ORIGINS"),
        ("null", True, "rooms.example", "SFU_ALLOWED_ORIGINS"),
    ],
)
def test_a_refusal_names_the_setting_that_would_help(origin: str, secure: bool, host: str, advice: str) -> None:
    connection = Upgraded(None, [(b"origin", origin.encode())], "/ws", "", secure, host)  # type: ignore[arg-type]
    with pytest.raises(OriginNotAllowed) as refusal:
        check_origin(connection, frozenset())
    message = str(refusal.value)
    assert advice in message
    assert repr(origin) in message
    assert f"'{'https' if secure else 'http'}://{host}'" in message
    assert ("SFU_ALLOWED_ORIGINS" in message) == (advice in ("must pass on Host", "SFU_ALLOWED_ORIGINS"))
