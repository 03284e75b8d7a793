"""Video rooms for small teams: WebRTC media forwarded, never decoded."""

__version__ = "0.1.0"
