"""What goes wrong with a request."""

from __future__ import annotations


class ApiError(Exception):
    """The server refused a request. `code` is stable, `detail` is for people.

    `field` names the invalid field, or is empty. `request_id` is how the server's logs name the request.
    `retry_after` is in seconds, or None if the server named no time.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{detail} ({code}, {status})" if status else f"{detail} ({code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.request_id = request_id
        self.retry_after = retry_after


class Unreachable(ApiError):
    """There was no answer, so the request may or may not have had its effect. `status` is 0."""

    def __init__(self, detail: str) -> None:
        super().__init__(0, "unreachable", detail)
