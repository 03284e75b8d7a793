"""The table of all routes under /api/v1: parameters, responses, errors, and who may call them.

The server, the OpenAPI description and the tests are generated from this table. It is the only list of routes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sfu.api.schemas.audit import ACTION
from sfu.api.schemas.common import DATE, FORMAT, IF_EXISTS, LIMIT, MONTH, NAME, PAGED, Schema, described, sorted_by
from sfu.api.schemas.history import STATE as SESSION_STATE
from sfu.api.schemas.history import ZONE
from sfu.api.schemas.keys import TOKENS
from sfu.api.schemas.tokens import STATE
from sfu.api.schemas.webhooks import AFTER, OVERLAP, SINCE, STATES
from sfu.api.times import INSTANT
from sfu.store.events import TYPES
from sfu.tenancy.scopes import Scope

PREFIX = "/api/v1"

Access = Literal["public", "key", "moderator", "admin"]
"""`key`: an API key. `moderator`: an API key, or a token with `moderate` for the room in the path. `admin`: an admin
key."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `path` has its parameters in braces. `body`, `answer` and `rows` (a line of CSV) name schemas.

    `scope` is what an API key needs; without one, `admin`. `if_match`, `not_found` and `conflict` say which refusals
    are possible beyond those of every route.
    """

    name: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    tag: str
    summary: str
    status: int = 200
    access: Access = "key"
    scope: Scope | None = None
    query: dict[str, Schema] = field(default_factory=dict)
    body: str = ""
    answer: str = ""
    rows: str = ""
    if_match: bool = False
    not_found: bool = False
    conflict: bool = False
    content_type: str = "application/json"

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET" and self.name != "inspect_token"

    @property
    def body_types(self) -> tuple[str, ...]:
        """The media types of the body."""
        return ("application/json", *(["application/merge-patch+json"] if self.method == "PATCH" else []))

    @property
    def parameters(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


_SESSIONS: dict[str, Schema] = {
    "from": described(INSTANT, "Begun not before this time."), "to": described(INSTANT, "Begun before this time."),
    "user": described(NAME, "The name of the person, or your own id of them."), "state": SESSION_STATE,
    "sort": sorted_by("connected_at"),
}  # fmt: skip

ROUTES = (
    Route("issue_token", "POST", "/tokens", "tokens", "Create a token to enter a room with", 201,
          body="TokenRequest", answer="IssuedToken", scope="tokens:create"),
    Route("list_tokens", "GET", "/tokens", "tokens", "Issued tokens, newest first",
          query={"room": NAME, "user": described(NAME, "A name, or an id of yours."), "state": STATE,
                 "from": described(INSTANT, "Issued not before this time."),
                 "to": described(INSTANT, "Issued before this time."), "sort": sorted_by("created_at"), **PAGED},
          answer="Tokens", rows="Token", scope="tokens:create"),
    Route("issue_tokens", "POST", "/tokens/bulk", "tokens", "Create up to 100 tokens: all of them, or none",
          body="TokenRequests", answer="IssuedTokens", scope="tokens:create"),
    Route("inspect_token", "POST", "/tokens/inspect", "tokens", "Whether a token is accepted now, and if not, why",
          body="InspectRequest", answer="Inspection", scope="tokens:create"),
    Route("get_token", "GET", "/tokens/{token_id}", "tokens", "A token's record, without the token", answer="Token",
          not_found=True, scope="tokens:create"),
    Route("revoke_token", "DELETE", "/tokens/{token_id}", "tokens",
          "Revoke a token for good, and end the call of whoever entered with it", 204, not_found=True,
          scope="tokens:create"),
    Route("set_own_secret", "PUT", "/company/secret", "tokens",
          "Set the secret with which your backend signs tokens by itself; an earlier one is no longer accepted", 204,
          body="OwnSecret", scope="admin"),
    Route("remove_own_secret", "DELETE", "/company/secret", "tokens",
          "Accept only tokens that the server made", 204, scope="admin"),
    Route("list_rooms", "GET", "/rooms", "rooms", "Rooms by id", query=PAGED, answer="Rooms", rows="RoomSummary",
          scope="rooms:read"),
    Route("create_room", "POST", "/rooms", "rooms", "Create a room. (Joining creates one, too.)", 201,
          query={"if_exists": IF_EXISTS}, body="RoomRequest", answer="Room", conflict=True, scope="rooms:write"),
    Route("get_room", "GET", "/rooms/{room_id}", "rooms", "A room and who is in it now", access="moderator",
          answer="Room", not_found=True, scope="rooms:read"),
    Route("change_room", "PUT", "/rooms/{room_id}", "rooms", "Change a room; omitted fields keep their value",
          access="moderator", body="RoomChange", answer="Room", if_match=True, not_found=True, scope="rooms:write"),
    Route("patch_room", "PATCH", "/rooms/{room_id}", "rooms",
          "Change a room, and parts of its metadata: a merge patch (RFC 7396)", access="moderator", body="RoomChange",
          answer="Room", if_match=True, not_found=True, scope="rooms:write"),
    Route("list_participants", "GET", "/rooms/{room_id}/participants", "calls",
          "Who is in the call on this server, and what they publish", access="moderator", answer="CallParticipants",
          not_found=True, conflict=True, scope="rooms:read"),
    Route("get_participant", "GET", "/rooms/{room_id}/participants/{session_id}", "calls",
          "Somebody in the call: what they publish and may do", access="moderator", answer="CallParticipant",
          not_found=True, conflict=True, scope="rooms:read"),
    Route("change_participant", "PATCH", "/rooms/{room_id}/participants/{session_id}", "calls",
          "Change what somebody may do in the call, or their name there. It takes effect at once", access="moderator",
          body="ParticipantChange", answer="CallParticipant", not_found=True, conflict=True, scope="rooms:write"),
    Route("move_participant", "POST", "/rooms/{room_id}/participants/{session_id}/move", "calls",
          "Send somebody to another room of the company, without a click of theirs", 204, body="MoveRequest",
          not_found=True, conflict=True, scope="tokens:create"),
    Route("remove_participant", "DELETE", "/rooms/{room_id}/participants/{session_id}", "calls",
          "Remove somebody from the call, and keep them out", 204, access="moderator", not_found=True, conflict=True,
          scope="rooms:write"),
    Route("mute_participant", "POST", "/rooms/{room_id}/participants/{session_id}/mute", "calls",
          "Mute somebody. They can unmute themselves", 204, access="moderator", body="MuteRequest", not_found=True,
          conflict=True, scope="rooms:write"),
    Route("turn_spotlight", "POST", "/rooms/{room_id}/spotlight", "calls",
          "Have everybody show somebody large, or (null) nobody in particular", 204, access="moderator",
          body="SpotlightRequest", not_found=True, conflict=True, scope="rooms:write"),
    Route("send_message", "POST", "/rooms/{room_id}/messages", "calls",
          "Send data to the pages of everybody in the call, or of some", access="moderator", body="MessageRequest",
          answer="Delivered", not_found=True, conflict=True, scope="rooms:write"),
    Route("list_lobby", "GET", "/rooms/{room_id}/lobby", "calls", "Who waits to be admitted, in order of arrival",
          access="moderator", answer="Lobby", not_found=True, conflict=True, scope="rooms:read"),
    Route("admit_all", "POST", "/rooms/{room_id}/lobby/admit", "calls", "Admit everybody who waits",
          access="moderator", answer="Admitted", not_found=True, conflict=True, scope="rooms:write"),
    Route("admit_participant", "POST", "/rooms/{room_id}/lobby/{waiter_id}/admit", "calls",
          "Admit somebody who waits", 204, access="moderator", not_found=True, conflict=True, scope="rooms:write"),
    Route("refuse_participant", "POST", "/rooms/{room_id}/lobby/{waiter_id}/refuse", "calls",
          "Refuse somebody who waits", 204, access="moderator", not_found=True, conflict=True, scope="rooms:write"),
    Route("end_call", "POST", "/rooms/{room_id}/end", "calls",
          "End the call for everybody. The room remains and can be entered again", 204, access="moderator",
          not_found=True, conflict=True, scope="rooms:write"),
    Route("list_chat", "GET", "/rooms/{room_id}/chat", "calls", "The chat that is kept, newest first",
          access="moderator", query=PAGED, answer="ChatLines", rows="ChatLine", scope="rooms:read"),
    Route("add_line", "POST", "/rooms/{room_id}/chat", "calls",
          "Write a line in the chat, as the company", 201, body="LineRequest", answer="ChatLine",
          not_found=True, conflict=True, scope="rooms:write"),
    Route("delete_line", "DELETE", "/rooms/{room_id}/chat/{line_id}", "calls",
          "Delete a chat line, and its file", 204, access="moderator", not_found=True, scope="rooms:write"),
    Route("list_bans", "GET", "/rooms/{room_id}/bans", "calls", "Who was removed and is kept out, newest first",
          access="moderator", query=PAGED, answer="Bans", rows="Ban", scope="rooms:read"),
    Route("lift_ban", "DELETE", "/rooms/{room_id}/bans/{ban_id}", "calls", "Lift a ban: the person may return", 204,
          access="moderator", not_found=True, scope="rooms:write"),
    Route("delete_room", "DELETE", "/rooms/{room_id}", "rooms",
          "Delete a room and its chat, end its call and revoke its tokens. Its history remains", 204,
          access="moderator", if_match=True, not_found=True, scope="rooms:write"),
    Route("list_sessions", "GET", "/rooms/{room_id}/sessions", "history",
          "Past and present sessions in a room, newest first", query={**_SESSIONS, **PAGED},
          answer="Sessions", rows="Session", not_found=True, scope="history:read"),
    Route("all_sessions", "GET", "/sessions", "history", "Past and present sessions in all rooms, newest first",
          query={"room": NAME, **_SESSIONS, **PAGED}, answer="Sessions", rows="Session", scope="history:read"),
    Route("get_session", "GET", "/sessions/{session_id}", "history", "One session", answer="Session", not_found=True,
          scope="history:read"),
    Route("user_rooms", "GET", "/users/{user_name}/rooms", "history", "The rooms somebody is in now",
          query={"format": FORMAT}, answer="UserRooms", rows="UserRoom", scope="history:read"),
    Route("room_days", "GET", "/analytics/rooms", "history", "Usage of each room on each day, last day first",
          query={"from": {**DATE, "description": "Inclusive. Default: 29 days before `to`. After `to`: 422."},
                 "to": {**DATE, "description": "Inclusive. Default: today."},
                 "tz": ZONE, **PAGED},
          answer="RoomDays", rows="RoomDay", scope="history:read"),
    Route("usage", "GET", "/usage", "history", "Minutes, people and tokens of a month, by day, beside the limits",
          query={"month": MONTH}, answer="Usage", scope="history:read"),
    Route("list_keys", "GET", "/keys", "keys", "API keys, newest first, those that do not work any more included",
          query=PAGED, answer="Keys", rows="Key", scope="admin"),
    Route("create_key", "POST", "/keys", "keys", "Create an API key, which only this answer contains", 201,
          body="KeyRequest", answer="NewKey", conflict=True, scope="admin"),
    Route("get_key", "GET", "/keys/{key_id}", "keys", "An API key, without its text", answer="Key", not_found=True,
          scope="admin"),
    Route("change_key", "PATCH", "/keys/{key_id}", "keys", "Change a key; omitted fields keep their value",
          body="KeyChange", answer="Key", not_found=True, scope="admin"),
    Route("rotate_key", "POST", "/keys/{key_id}/rotate", "keys",
          "Create a key in place of this one, which works for a while beside it", 201, body="RotateRequest",
          answer="NewKey", not_found=True, conflict=True, scope="admin"),
    Route("revoke_key", "DELETE", "/keys/{key_id}", "keys",
          "Revoke a key for good, and with `tokens=revoke` all tokens that it issued", 204, query={"tokens": TOKENS},
          not_found=True, scope="admin"),
    Route("list_companies", "GET", "/companies", "companies", "Companies by name", access="admin", query=PAGED,
          answer="Companies", rows="Company"),
    Route("create_company", "POST", "/companies", "companies",
          "Create a company with an API key, which only this answer contains", 201, access="admin",
          body="CompanyRequest", answer="NewCompany", conflict=True),
    Route("get_company", "GET", "/companies/{company_id}", "companies", "A company", access="admin", answer="Company",
          not_found=True),
    Route("change_company", "PATCH", "/companies/{company_id}", "companies",
          "Rename, disable or enable a company, or change its tier; omitted fields keep their value", access="admin",
          body="CompanyChange", answer="Company", not_found=True, conflict=True),
    Route("company_usage", "GET", "/companies/{company_id}/usage", "companies",
          "Minutes, people and tokens of a company in a month", access="admin", query={"month": MONTH},
          answer="Usage", not_found=True),
    Route("list_audit", "GET", "/audit", "audit", "Who changed what, newest first",
          query={"from": described(INSTANT, "Not before this time."), "to": described(INSTANT, "Before this time."),
                 "room": NAME, "user": described(NAME, "The person it is about."), "action": ACTION,
                 "by": described(NAME, "The author: an id or a name."), **PAGED},
          answer="AuditEntries", rows="AuditEntry", scope="history:read"),
    Route("list_events", "GET", "/events", "webhooks", "What happened, in order: the same that webhooks are sent",
          query={"after": AFTER, "limit": LIMIT, "type": {"type": "string", "enum": list(TYPES)}, "room": NAME},
          answer="Events", scope="history:read"),
    Route("list_webhooks", "GET", "/webhooks", "webhooks", "All webhooks, newest first", answer="Webhooks",
          scope="webhooks:write"),
    Route("create_webhook", "POST", "/webhooks", "webhooks", "Have what happens from now on sent to a URL", 201,
          body="WebhookRequest", answer="CreatedWebhook", conflict=True, scope="webhooks:write"),
    Route("get_webhook", "GET", "/webhooks/{webhook_id}", "webhooks", "A webhook, without its secret",
          answer="Webhook", not_found=True, scope="webhooks:write"),
    Route("change_webhook", "PUT", "/webhooks/{webhook_id}", "webhooks",
          "Change a webhook; omitted fields keep their value", body="WebhookChange", answer="Webhook", not_found=True,
          scope="webhooks:write"),
    Route("rotate_webhook", "POST", "/webhooks/{webhook_id}/rotate", "webhooks",
          "Make a new secret; the one until now signs as well for a while", query={"overlap": OVERLAP},
          answer="CreatedWebhook", not_found=True, scope="webhooks:write"),
    Route("test_webhook", "POST", "/webhooks/{webhook_id}/test", "webhooks",
          "Send a message of the type `webhook.test`, once, also while the webhook is paused", 202, answer="Delivery",
          not_found=True, scope="webhooks:write"),
    Route("resume_webhook", "POST", "/webhooks/{webhook_id}/resume", "webhooks",
          "End a pause, and try at once what waits", answer="Webhook", not_found=True, scope="webhooks:write"),
    Route("replay_webhook", "POST", "/webhooks/{webhook_id}/replay", "webhooks",
          "Send again what happened since then, as far as it is kept", 202, query={"from": SINCE}, answer="Replay",
          not_found=True, scope="webhooks:write"),
    Route("list_deliveries", "GET", "/webhooks/{webhook_id}/deliveries", "webhooks",
          "What was sent and what waits, newest first",
          query={**PAGED, "state": {"type": "string", "enum": list(STATES)}}, answer="Deliveries", rows="Delivery",
          not_found=True, scope="webhooks:write"),
    Route("delete_webhook", "DELETE", "/webhooks/{webhook_id}", "webhooks",
          "Delete a webhook, and what still waits for it", 204, not_found=True, scope="webhooks:write"),
    Route("openapi", "GET", "/openapi.json", "about", "This description", access="public"),
    Route("docs", "GET", "/docs", "about", "This description for people", access="public",
          content_type="text/html; charset=utf-8"),
)  # fmt: skip
