"""Refusals that concern API keys, tokens, rooms, files or the database, each with a stable code as in `errors.py`."""

from __future__ import annotations

from sfu.errors import SfuError

QUOTAS = {
    "room_people": "people in one room",
    "rooms": "rooms",
    "people": "people in calls at once",
    "minutes_month": "minutes of all people in a month",
    "tokens_minute": "tokens in a minute",
    "file_bytes": "bytes of a shared file",
}
"""What the limits of a tier count that can refuse a request."""


class Refusal(SfuError):
    """Base of the refusals below. Those that set a close code can end a WebSocket; the others occur in HTTP only."""

    code, status, close_code = "refused", 400, 4400
    default = "The request was refused."

    @property
    def members(self) -> dict[str, str]:
        """Further members of the problem that a REST request gets."""
        return {}


class DatabaseUnavailable(Refusal):
    """The database did not answer in time, or refused a statement. Whether a write took place may be unknown."""

    code, status, close_code = "database_unavailable", 503, 1013
    default = "The database does not answer. Try again in a few seconds."
    retry_after_s = 5


class TooManyRequests(Refusal):
    code, status = "too_many_requests", 429
    default = "This address sent too many requests."

    def __init__(self, retry_after_s: int) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


class TooManyFailures(TooManyRequests):
    code, close_code = "too_many_failures", 4429
    default = "This address sent too many requests with a wrong key or token."


class TooManyJoins(TooManyRequests):
    code, close_code = "too_many_joins", 1013

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.args = (f"Too many people are joining from your network. Try again in {retry_after_s} s.",)


class BadValue(Refusal):
    code = "bad_value"
    default = "A value cannot be stored."


class BadCursor(Refusal):
    code, status = "bad_cursor", 404
    default = "The cursor does not belong to this list."


class CompanyExists(Refusal):
    code, status = "company_exists", 409
    default = "A company with this name already exists."


class CompanyNotFound(Refusal):
    code, status = "company_not_found", 404
    default = "There is no such company."


class CompanyDisabled(Refusal):
    code, status, close_code = "company_disabled", 403, 4403
    default = "This company is disabled."


class KeyNotFound(Refusal):
    code, status = "key_not_found", 404
    default = "There is no such key."


class TooManyKeys(Refusal):
    code, status = "too_many_keys", 409
    default = "The company has too many keys."


class QuotaExceeded(Refusal):
    """The company's tier does not allow more. `limit` is a field of sfu.store.tiers.Limits."""

    code, status, close_code = "quota_exceeded", 403, 4403
    default = "A limit of the company's tier is reached; `limit` names it."

    def __init__(self, limit: str, most: int) -> None:
        self.limit = limit
        self.retry_after_s = 60 if limit == "tokens_minute" else None
        super().__init__(f"The company's limit is reached: {most} {QUOTAS[limit]}.")

    @property
    def members(self) -> dict[str, str]:
        return {"limit": self.limit}


class RoomExists(Refusal):
    code, status = "room_exists", 409
    default = "A room with this id already exists."


class RoomNotFound(Refusal):
    code, status = "room_not_found", 404
    default = "There is no such room."


class RoomDeleted(Refusal):
    code, status, close_code = "room_deleted", 410, 4410
    default = "The room was deleted."


class RoomElsewhere(Refusal):
    """Another server on the same database has the call of this room."""

    code, status, close_code = "room_elsewhere", 409, 1013
    default = "The call in this room is on another server. Use that one. If it has stopped, try again in a minute."

    def __init__(self, server: str) -> None:
        super().__init__(
            f"The call in this room is on another server, {server!r}. Use that one. If it has stopped, try again in a "
            "minute."
        )


class WebhookNotFound(Refusal):
    code, status = "webhook_not_found", 404
    default = "There is no such webhook."


class WebhooksFull(Refusal):
    code, status = "webhooks_full", 409
    default = "The company has as many webhooks as it may have. Delete one first."


class NoCall(Refusal):
    code, status = "no_call", 409
    default = "Nobody is in the room, so there is no call."


class CannotMove(Refusal):
    code, status = "cannot_move", 409
    default = "The participant's client is not connected at the moment, or does not know the event `move`."


class RoomChanged(Refusal):
    """If-Match named an outdated version of the room (RFC 9110 section 13.1.1)."""

    code, status = "room_changed", 412
    default = "The room was changed by somebody else. Read it again."


class TokenRequired(Refusal):
    code, status, close_code = "token_required", 401, 4401
    default = "This room can only be entered with a token."


class TokenError(Refusal):
    """The token is not accepted. `advice` tells the issuer of the token what to do."""

    code, status, close_code = "token_invalid", 401, 4401
    default = "The token is not valid."
    advice = "Ask the server for a new token."


class TokenMalformed(TokenError):
    code = "token_malformed"
    default = "This is not a token of this server: it is not a signed JWT with a key id."
    advice = "Pass on the `token` in the response to POST /api/v1/tokens unchanged, without quotes or spaces."


class TokenAlgorithm(TokenError):
    code = "token_algorithm"
    default = "The token is not signed with HS256."
    advice = "Create tokens with POST /api/v1/tokens. No other algorithm is ever accepted, `none` included."


class TokenSignature(TokenError):
    code = "token_signature"
    default = "The token was not signed with the company's secret."
    advice = (
        "The token was altered in transit, or it was made before the company's secret was rotated or by another server."
    )


class TokenAudience(TokenError):
    code = "token_audience"
    default = "The token was not issued for this service."
    advice = "`aud` must be `webrtc` and `iss` must be `sfu`, as POST /api/v1/tokens sets them."


class TokenClaim(TokenError):
    code = "token_claim"
    default = "A claim of the token is missing or invalid."
    advice = "Create the token with POST /api/v1/tokens, which sets every claim."


class TokenCompany(TokenError):
    code = "token_company"
    default = "The token names another company than the one whose secret signed it."
    advice = "A company's secret signs tokens of that company only."


class TokenLifetime(TokenError):
    code = "token_lifetime"
    default = "The token is valid for longer than 24 hours."
    advice = "Ask for a `duration` of at most 86400 seconds."


class TokenExpired(TokenError):
    code = "token_expired"
    default = "The token has expired."
    advice = "Ask the server for a new token, with a longer `duration` if necessary."


class TokenNotYetValid(TokenError):
    code = "token_not_yet_valid"
    default = "The token is not valid yet."
    advice = "Compare the clock of the machine that issued the token with the server's time."


class TokenRoom(TokenError):
    code, status, close_code = "token_room", 403, 4403
    default = "The token is for another room."
    advice = "Omit `room` from the address, or ask for a token for this room."


class TokenRevoked(TokenError):
    code = "token_revoked"
    default = "The token was revoked."
    advice = "It was revoked on purpose, or its room was deleted. Ask the server for a new token."


class TokenUsed(TokenError):
    code = "token_used"
    default = "The token was for a single use and has been used."
    advice = "Ask for a new token for each join, or omit `single_use`."


class TokenUnknown(TokenError):
    code = "token_unknown"
    default = "The server has no record of this token."
    advice = "It was issued with another database, or its record was deleted. Ask the server for a new token."


class SessionUnknown(Refusal):
    code, status = "session_unknown", 401
    default = "No participant has this session. Send `welcome.session` as `Authorization: Bearer …`."


class FilesOff(Refusal):
    code, status = "files_off", 403
    default = "File sharing is disabled in this room."


class FileTooLarge(Refusal):
    code, status = "file_too_large", 413
    default = "The file is larger than the server allows."


class FileLate(Refusal):
    code, status = "file_late", 408
    default = "The file did not arrive in time."


class FilesFull(Refusal):
    code, status = "files_full", 507
    default = "There is no space for more files."


class FileNotFound(Refusal):
    code, status = "file_not_found", 404
    default = "There is no such file, or it has been deleted."
