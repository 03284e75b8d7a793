"""Refusals about API keys, tokens, rooms and the database, each with a stable code, as in `errors.py`."""

from __future__ import annotations

from sfu.errors import SfuError


class Refusal(SfuError):
    """Base of the refusals below. Those with a close code of their own can end a WebSocket; the others are REST's."""

    code, status, close_code = "refused", 400, 4400
    default = "The request was refused."


class DatabaseUnavailable(Refusal):
    """The database did not answer, or not in time. Whether a write took place is then unknown."""

    code, status, close_code = "database_unavailable", 503, 1013
    default = "The database does not answer. Try again in a few seconds."
    retry_after_s = 5
    """For the Retry-After header (RFC 9110 section 10.2.3)."""


class TooManyRequests(Refusal):
    """`retry_after_s` goes into the Retry-After header (RFC 9110 section 10.2.3)."""

    code, status = "too_many_requests", 429
    default = "Too many requests came from this address."

    def __init__(self, retry_after_s: int) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


class TooManyFailures(TooManyRequests):
    code, close_code = "too_many_failures", 4429
    default = "Too many requests with a wrong key or token came from this address."


class BadValue(Refusal):
    code = "bad_value"
    default = "A value cannot be stored."


class BadCursor(Refusal):
    code, status = "bad_cursor", 404
    default = "The cursor is not one this list gave out."


class CompanyExists(Refusal):
    code, status = "company_exists", 409
    default = "There is a company with this name already."


class CompanyNotFound(Refusal):
    code, status = "company_not_found", 404
    default = "There is no such company."


class CompanyDisabled(Refusal):
    code, status, close_code = "company_disabled", 403, 4403
    default = "This company is disabled."


class RoomExists(Refusal):
    code, status = "room_exists", 409
    default = "There is a room with this id already."


class RoomNotFound(Refusal):
    code, status = "room_not_found", 404
    default = "There is no such room."


class RoomDeleted(Refusal):
    code, status, close_code = "room_deleted", 410, 4410
    default = "The room was deleted."


class RoomChanged(Refusal):
    """If-Match named a version that is no longer the room's (RFC 9110 section 13.1.1)."""

    code, status = "room_changed", 412
    default = "The room was changed by somebody else. Read it again."


class TokenRequired(Refusal):
    code, status, close_code = "token_required", 401, 4401
    default = "This room is entered with a token only."


class TokenError(Refusal):
    """A token that is not accepted. `advice` tells whoever made the token what to do."""

    code, status, close_code = "token_invalid", 401, 4401
    default = "The token is not valid."
    advice = "Ask the server for a new token."


class TokenMalformed(TokenError):
    code = "token_malformed"
    default = "This is not a token of this server: it is not a signed JWT with a key id."
    advice = "Pass on the value of `token` from the answer to POST /api/v1/tokens unchanged, without quotes or blanks."


class TokenAlgorithm(TokenError):
    code = "token_algorithm"
    default = "The token is not signed with HS256."
    advice = "Tokens are made by POST /api/v1/tokens; no other algorithm, `none` included, is ever accepted."


class TokenSignature(TokenError):
    code = "token_signature"
    default = "The token's signature is not the company's."
    advice = (
        "The token was changed on its way, or the company's secret was rotated since, or it is another server's token."
    )


class TokenAudience(TokenError):
    code = "token_audience"
    default = "The token was not made for this service."
    advice = "`aud` must be `webrtc` and `iss` must be `sfu`, as POST /api/v1/tokens makes them."


class TokenClaim(TokenError):
    code = "token_claim"
    default = "A claim of the token is missing or cannot be used."
    advice = "Let POST /api/v1/tokens make the token; it sets every claim."


class TokenCompany(TokenError):
    code = "token_company"
    default = "The company in the token is not the one whose key signed it."
    advice = "A company's key signs tokens for this company only."


class TokenLifetime(TokenError):
    code = "token_lifetime"
    default = "The token is made to live longer than 24 hours."
    advice = "Ask for a `duration` of at most 86400 seconds."


class TokenExpired(TokenError):
    code = "token_expired"
    default = "The token has expired."
    advice = "Ask the server for a new token, with a longer `duration` if this one was too short."


class TokenNotYetValid(TokenError):
    code = "token_not_yet_valid"
    default = "The token is not valid yet."
    advice = "Compare the clock of the machine that made the token with the server's time."


class TokenRoom(TokenError):
    code, status, close_code = "token_room", 403, 4403
    default = "The token is for another room."
    advice = "Leave `room` out of the address, or ask for a token for this room."


class TokenRevoked(TokenError):
    code = "token_revoked"
    default = "The token was revoked."
    advice = "Somebody withdrew it on purpose (or its room was deleted). Ask the server for a new token."


class TokenUsed(TokenError):
    code = "token_used"
    default = "The token was for one use and has been used."
    advice = "Ask for a new token for each join, or leave `single_use` out."


class TokenUnknown(TokenError):
    code = "token_unknown"
    default = "The server has no record of this token."
    advice = "It was made against another database, or its record was deleted. Ask the server for a new token."


class SessionUnknown(Refusal):
    code, status = "session_unknown", 401
    default = "Nobody in a call has this session. Send `welcome.session` as `Authorization: Bearer …`."


class FilesOff(Refusal):
    code, status = "files_off", 403
    default = "No files may be shared in this room."


class FileTooLarge(Refusal):
    code, status = "file_too_large", 413
    default = "The file is larger than the server allows."


class FileLate(Refusal):
    code, status = "file_late", 408
    default = "The file did not come in time."


class FilesFull(Refusal):
    code, status = "files_full", 507
    default = "There is no room for more files."


class FileNotFound(Refusal):
    code, status = "file_not_found", 404
    default = "There is no such file, or it has been deleted."
