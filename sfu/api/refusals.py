"""Error codes that only the REST API uses."""

from __future__ import annotations

from sfu.refusals import Refusal

ADVICE = "Send the API key as `Authorization: Bearer pk_…`."


class ApiKeyMissing(Refusal):
    code, status = "api_key_missing", 401
    default = f"The request has no API key. {ADVICE}"


class ApiKeyInvalid(Refusal):
    code, status = "api_key_invalid", 401
    default = (
        "No company of this server has this API key. It may have expired, or been revoked or replaced: `sfu key "
        "list COMPANY` and `sfu admin-key --list` show the beginning of keys that work."
    )


class ScopeMissing(Refusal):
    """The API key may not do this."""

    code, status = "scope_missing", 403
    default = "The API key does not have the scope that `scope` names. `admin` includes it."

    def __init__(self, scope: str, why: str = "") -> None:
        self.scope = scope
        super().__init__(f"{why} The API key does not have the scope `{scope}`. `admin` includes it.".lstrip())

    @property
    def members(self) -> dict[str, str]:
        return {"scope": self.scope}


class AdminKeyRequired(Refusal):
    code, status = "admin_key_required", 403
    default = "Companies are managed with an admin key, `ak_…`, which `sfu admin-key` makes."


class CompanyKeyRequired(Refusal):
    code, status = "company_key_required", 403
    default = "An admin key manages companies only. Use an API key of the company, `pk_…`."


class ModeratorRequired(Refusal):
    code, status = "not_allowed", 403
    default = "The token does not have the permission `moderate`."


class BadBody(Refusal):
    code = "bad_json"
    default = "The body is not valid JSON."


class BodyNotJson(Refusal):
    code, status = "unsupported_media_type", 415
    default = "The body must be JSON, with `Content-Type: application/json`."


class BadField(Refusal):
    """An invalid field or parameter. `field` is its path, such as `permissions.chat`."""

    code, status = "bad_field", 422
    default = "A field or parameter is missing, unknown or invalid; `field` names it."

    def __init__(self, field: str, fault: str) -> None:
        self.field = field[:100].encode("utf-8", "replace").decode() or "body"
        super().__init__(f"{self.field}: {fault}.")

    @property
    def members(self) -> dict[str, str]:
        return {"field": self.field}


class ParticipantNotFound(Refusal):
    code, status = "participant_not_found", 404
    default = "No participant of the call has this session."


class WaiterNotFound(Refusal):
    code, status = "waiter_not_found", 404
    default = "Nobody with this id waits in the lobby (any more)."


class LineNotFound(Refusal):
    code, status = "line_not_found", 404
    default = "There is no such chat line."


class BanNotFound(Refusal):
    code, status = "ban_not_found", 404
    default = "There is no such ban."


class TokenNotFound(Refusal):
    code, status = "token_not_found", 404
    default = "There is no such token."


class IdempotencyMismatch(Refusal):
    code, status = "idempotency_mismatch", 422
    default = "The Idempotency-Key was sent before with another request. Use a new key for each new request."


class IdempotencyRunning(Refusal):
    """The first request with this key has not been answered, or its server died. Later, it is carried out again."""

    code, status = "idempotency_running", 409
    default = "The first request with this Idempotency-Key is still being carried out."

    def __init__(self, retry_after_s: int) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


class SessionNotFound(Refusal):
    code, status = "session_not_found", 404
    default = "There is no such session."
