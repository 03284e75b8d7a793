"""Codecs, payload types and header-extension ids: the same in all rooms, as the server's offers fix them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["audio", "video"]
Direction = Literal["sendonly", "recvonly", "inactive"]
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
TRANSPORT_CC_ID = 5
AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
AUDIO_LEVEL_ID = 1
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
MID_ID = 3
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
RID_ID = 4
REPAIRED_RID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
REPAIRED_RID_ID = 6
EXTENSIONS_RECEIVED: dict[Kind, tuple[tuple[int, str], ...]] = {
    "audio": ((TRANSPORT_CC_ID, TRANSPORT_CC), (AUDIO_LEVEL_ID, AUDIO_LEVEL)),
    "video": ((TRANSPORT_CC_ID, TRANSPORT_CC),),
}
"""Header extensions (RFC 8285) offered to publishers, by kind; ingress.py reads them."""
EXTENSIONS_OF_LAYERS = ((MID_ID, MID), (RID_ID, RID), (REPAIRED_RID_ID, REPAIRED_RID))
"""Offered in addition where a simulcast may be sent (RFC 8852)."""
EXTENSIONS_SENT: dict[Kind, tuple[tuple[int, str], ...]] = {"audio": (), "video": ((TRANSPORT_CC_ID, TRANSPORT_CC),)}
"""Header extensions offered to subscribers, by kind; send_history.py numbers the packets."""
RIDS = ("q", "h", "f")
"""RIDs of simulcast layers, the smallest layer first (publication.py)."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A payload type, its rtpmap and fmtp, and the payload type of its retransmissions (RFC 4588)."""

    payload_type: int
    rtpmap: str
    fmtp: str = ""
    feedback: tuple[str, ...] = ()
    rtx: int | None = None


OPUS = Codec(111, "opus/48000/2", "minptime=10;useinbandfec=1", ("transport-cc", "nack"))
RED = Codec(63, "red/48000/2", "111/111")
"""Redundant audio: each packet repeats the Opus frame before it (RFC 2198). Browsers send it only if it is listed
before Opus."""
_VIDEO_FEEDBACK = ("transport-cc", "goog-remb", "ccm fir", "nack", "nack pli")
"""Publishers estimate their uplink from transport-wide feedback, and the server estimates downlinks from that of
subscribers. Those that do not give it report their own estimate in REMB."""
VP8 = Codec(96, "VP8/90000", "", _VIDEO_FEEDBACK, rtx=97)
VP9 = Codec(98, "VP9/90000", "profile-id=0", _VIDEO_FEEDBACK, rtx=99)
AV1 = Codec(45, "AV1/90000", "level-idx=5;profile=0;tier=0", _VIDEO_FEEDBACK, rtx=46)
H264 = Codec(
    102,
    "H264/90000",
    "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    _VIDEO_FEEDBACK,
    rtx=103,
)
CODECS: dict[Kind, tuple[Codec, ...]] = {"audio": (OPUS,), "video": (VP8, VP9, AV1, H264)}
"""In the order in which clients should prefer them: VP8 first, since every client can send and show it."""
VIDEO_TYPES = frozenset(codec.payload_type for codec in CODECS["video"])
PAYLOAD_KINDS: dict[int, Kind] = {codec.payload_type: kind for kind, codecs in CODECS.items() for codec in codecs}
PAYLOAD_KINDS[RED.payload_type] = "audio"
"""Kind by payload type, without RTX. Packets of other types are not forwarded."""
RTX_OF = {codec.rtx: codec.payload_type for codec in CODECS["video"] if codec.rtx is not None}
"""Payload type of the media by payload type of its RTX (RFC 4588)."""
CODEC_RTX = {media: repair for repair, media in RTX_OF.items()}
