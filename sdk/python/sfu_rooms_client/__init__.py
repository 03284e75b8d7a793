"""A client of the REST API of sfu-rooms, and the verification of its webhooks.

client = Client("https://meet.example.org", "pk_…")
issued = client.tokens.issue("team-meeting", "alice")
print(client.link(issued["token"]))
"""

from sfu_rooms_client.client import Client
from sfu_rooms_client.errors import ApiError, Unreachable
from sfu_rooms_client.types import (
    Event,
    Inspection,
    IssuedToken,
    Participant,
    Permissions,
    Room,
    RoomSettings,
    Session,
    Token,
    TokenOptions,
    TokenRequest,
    UserRoom,
)
from sfu_rooms_client.webhooks import WebhookError, verify_webhook

__version__ = "0.1.0"
__all__ = [
    "ApiError",
    "Client",
    "Event",
    "Inspection",
    "IssuedToken",
    "Participant",
    "Permissions",
    "Room",
    "RoomSettings",
    "Session",
    "Token",
    "TokenOptions",
    "TokenRequest",
    "Unreachable",
    "UserRoom",
    "WebhookError",
    "verify_webhook",
]
