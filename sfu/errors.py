"""Every error and refusal of a call, each with a stable code.

Clients match on `code`, which never changes; the text is for people and may change. An error reaches a client in one of
three forms: an `error` event (the session continues), an HTTP refusal with `status`, or a `bye` event followed by a
WebSocket close with `close_code` (RFC 6455 section 7.4; 4000-4999 are ours).
"""

from __future__ import annotations

REJOIN_CLOSE_CODES = frozenset({1001, 1011, 1012, 1013, 4408})
"""Close codes after which the client should rejoin: not its fault, or not likely to happen again."""


API, OPERATOR = "api", "operator"


class SfuError(Exception):
    """Base of all errors with a wire code. `str(error)` is a sentence for the person concerned."""

    code = "internal"
    status = 500
    close_code = 1011
    default = "The server met an unexpected condition."
    retry_after_s: int | None = None
    """When to try again, if that is known: for `bye`, and for the Retry-After header (RFC 9110 section 10.2.3)."""
    by = ""
    """Who ended the session, for its record: the session of a moderator, or API or OPERATOR."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.default)


class ConfigError(SfuError):
    """A setting, or a file or port that it names, cannot be used. During the start it ends the server."""

    code = "bad_config"


# --- the peer's fault: an `error` event, the room is not affected ----------------------------------------------------


class BadMessage(SfuError):
    code, status, close_code = "bad_message", 400, 1007
    default = "The message is not a JSON object with an event and data."


class UnknownEvent(SfuError):
    code, status, close_code = "unknown_event", 400, 1007
    default = "The server does not know this event."


class BadAnswer(SfuError):
    code, status, close_code = "bad_answer", 400, 4400
    default = "The answer does not fit the offer."


class UnexpectedAnswer(SfuError):
    code, status, close_code = "unexpected_answer", 409, 4409
    default = "No offer is waiting for an answer."


class BadCandidate(SfuError):
    code, status, close_code = "bad_candidate", 400, 4400
    default = "The candidate is not a valid ICE candidate (RFC 8839)."


class TooManyCandidates(SfuError):
    code, status, close_code = "too_many_candidates", 429, 4429
    default = "The peer sent too many candidates."


class TooManyTracks(SfuError):
    code, status, close_code = "too_many_tracks", 429, 4429
    default = "The peer publishes too many tracks."


class BadSource(SfuError):
    code, status, close_code = "bad_source", 400, 4400
    default = "No track with this source is published."


class NoCommonCodec(SfuError):
    code, status, close_code = "no_common_codec", 400, 4400
    default = "This browser cannot decode VP8 video, so you see nobody. You hear everybody."


class NotAllowed(SfuError):
    code, status, close_code = "not_allowed", 403, 4403
    default = "This peer may not do that."


class UnknownPeer(SfuError):
    code, status, close_code = "unknown_peer", 404, 4404
    default = "No peer with this id is in the room (any more)."


class ChatTooLong(SfuError):
    code, status, close_code = "chat_too_long", 413, 4413
    default = "The chat message is longer than the server allows."


class ChatLimit(SfuError):
    code, status, close_code = "chat_limit", 429, 4429
    default = "There is too much chat. Your message was not sent. Try again in a moment."


# --- refusals and endings: an HTTP status before the upgrade, `bye` and a close code after it ------------------------


class BadRequest(SfuError):
    code, status = "bad_request", 400
    default = "The request is malformed."


class UpgradeRequired(SfuError):
    code, status = "upgrade_required", 426
    default = "This address accepts WebSocket requests only."


class BadName(SfuError):
    code, status, close_code = "bad_name", 400, 4400
    default = "The name is empty or too long."


class OriginNotAllowed(SfuError):
    code, status, close_code = "origin_not_allowed", 403, 4403
    default = "Pages of this origin may not use this server."


class RoomFull(SfuError):
    code, status, close_code = "room_full", 403, 4403
    default = "The room is full."


class RoomLocked(SfuError):
    code, status, close_code = "room_locked", 403, 4403
    default = "The room is locked: nobody else may enter. Ask somebody in the room to unlock it."


class Removed(SfuError):
    code, status, close_code = "removed", 403, 4403
    default = "You were removed from this room."


class LobbyRefused(SfuError):
    code, close_code = "lobby_refused", 4403
    default = "You were not let in."


class LobbyTimeout(SfuError):
    code, close_code = "lobby_timeout", 4408
    default = "Nobody has let you in yet."


class CallEnded(SfuError):
    code, status, close_code = "call_ended", 410, 1000
    default = "The call was ended for everybody."


class TimeOver(SfuError):
    code, close_code = "time_over", 1000
    default = "Your time in this call is over."


class ServerFull(SfuError):
    code, status, close_code = "server_full", 503, 1013
    default = "The server is full. Try again in a few seconds."
    retry_after_s = 10


class TooManyConnections(SfuError):
    code, status, close_code = "too_many_connections", 503, 1013
    default = "There are too many connections from your address. Close some of them, or try again in a moment."


class MediaUnavailable(SfuError):
    code, status, close_code = "media_unavailable", 503, 1013
    default = "The media part of the server is starting. Try again in a second."


class RateLimited(SfuError):
    code, status, close_code = "rate_limited", 429, 4429
    default = "The client sent too many messages in too short a time."


class MessageTooLarge(SfuError):
    code, status, close_code = "message_too_large", 413, 1009
    default = "The message is larger than the server allows."


class AnswerTimeout(SfuError):
    code, close_code = "answer_timeout", 4408
    default = "The offer was not answered in time."


class IceTimeout(SfuError):
    code, close_code = "ice_timeout", 4408
    default = (
        "No media path to the server could be found: a firewall blocks it, or the server advertises a wrong address."
    )


class DtlsFailed(SfuError):
    code, close_code = "dtls_failed", 4408
    default = "The encrypted media connection could not be set up."


class MediaLost(SfuError):
    code, close_code = "media_lost", 4408
    default = "No media traffic arrives from this peer any more."


class MediaRestarted(SfuError):
    code, status, close_code = "media_restarted", 503, 1012
    default = "The media part of the server was restarted. Join again."


class SlowConsumer(SfuError):
    code, close_code = "slow_consumer", 4408
    default = "The client does not read messages as fast as they are sent."


class Unresponsive(SfuError):
    code, close_code = "unresponsive", 4408
    default = "The client stopped responding."


class PageGone(SfuError):
    code, close_code = "page_gone", 4408
    default = "The page was closed or reloaded."


class SessionGone(SfuError):
    code, status, close_code = "session_gone", 410, 4408
    default = "The session cannot be resumed because it has ended. Join again."


class ProbeGone(SfuError):
    code, status, close_code = "probe_gone", 410, 4403
    default = "This link to a connection test is not valid any more. `sfu doctor --phone` makes a new one."


class Replaced(SfuError):
    code, close_code = "replaced", 4409
    default = "Another connection has taken over this session."


class ServerDraining(SfuError):
    """The server begins no call any more, since it stops when its running calls have ended, or soon."""

    code, status, close_code = "server_draining", 503, 1013

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"The server restarts soon and begins no more calls. Try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class ServerStopping(SfuError):
    code, status, close_code = "server_stopping", 503, 1001
    default = "The server is stopping or restarting."


def all_codes() -> dict[str, type[SfuError]]:
    """Every error class by its wire code; the base class stands for `internal`."""
    found: dict[str, type[SfuError]] = {SfuError.code: SfuError}
    pending = list(SfuError.__subclasses__())
    while pending:
        cls = pending.pop()
        found[cls.code] = cls
        pending += cls.__subclasses__()
    return found
