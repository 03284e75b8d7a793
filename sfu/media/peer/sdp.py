"""SDP: builds the server's offers, parses the clients' answers. Pure.

The server always offers (RFC 8829 with roles fixed), so it chooses mids, payload types, header-extension ids and SSRCs,
the same for the whole room: a forwarded packet needs no remapping. Sections are only ever appended or reused, as JSEP
demands; an unused section is `inactive`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from sfu.errors import BadAnswer
from sfu.media.rtp.codecs import (
    CODECS,
    EXTENSIONS_OF_LAYERS,
    EXTENSIONS_RECEIVED,
    EXTENSIONS_SENT,
    OPUS,
    RED,
    RIDS,
    VIDEO_TYPES,
    Direction,
    Kind,
)

SECTION_BYTES = 4096
ANSWER_SSRCS = 16
"""SSRC lines read per section; browsers write two or four."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What a sendonly section carries. `stream` is the msid and CNAME shared by a peer's tracks, which play in sync;
    `rtx_ssrc` is 0 if packets are resent under their own SSRC."""

    ssrc: int
    stream: str
    track: str
    rtx_ssrc: int = 0


@dataclass(frozen=True, slots=True)
class Opus:
    """How a publisher sends audio (RFC 7587 section 6.1): whether in stereo, and whether with pauses while nobody
    speaks (DTX)."""

    stereo: bool = False
    dtx: bool = False

    def parameters(self, direction: Direction) -> str:
        """The parameters of an fmtp line: a request to a publisher, or a promise to a subscriber."""
        stereo = "stereo=1" if direction == "recvonly" else "sprop-stereo=1"
        return f";{stereo}" * self.stereo + ";usedtx=1" * self.dtx


@dataclass(frozen=True, slots=True)
class Section:
    """One m-line of an offer; directions are the server's. Its mid is its index."""

    kind: Kind
    direction: Direction
    stream: Stream | None = None
    opus: Opus = Opus()
    types: frozenset[int] = VIDEO_TYPES  # the video payload types that may be sent in it
    simulcast: bool = False  # layers may be sent in it, now or once it is active again
    redundant: bool = False  # its audio may be RED


@dataclass(frozen=True, slots=True)
class Transport:
    """What all sections share: one ICE-lite agent, one DTLS certificate, the candidates.

    `bundled`: an answer has accepted BUNDLE, so only the first section needs the candidates (RFC 8829 section 5.2.2).
    Before that every section has them, as some clients read the last one's.
    """

    ufrag: str
    pwd: str
    fingerprint: str  # sha-256, upper case hex with colons
    candidates: Sequence[str]
    bundled: bool = False


@dataclass(frozen=True, slots=True)
class AnswerSection:
    """One section of a client's answer. `sends` and `receives` are from the client's side; `types` are the offered
    payload types that it accepted, without RTX."""

    mid: str
    kind: str
    sends: bool
    receives: bool
    ssrcs: tuple[int, ...]
    opus: Opus = Opus()
    types: frozenset[int] = frozenset()
    rids: tuple[str, ...] = ()  # the layers it sends, the smallest first
    repairs: bool = False  # it supports RTX (RFC 4588)
    redundant: bool = False  # it supports RED (RFC 2198)


@dataclass(frozen=True, slots=True)
class AnswerSdp:
    """A checked answer. `setup` is `active` if the client starts DTLS, else `passive`; `ice` is the client's ufrag and
    password (RFC 8839 section 5.4), if it gives them."""

    ice: tuple[str, str] | None
    fingerprints: tuple[tuple[str, str], ...]
    setup: Literal["active", "passive"]
    sections: tuple[AnswerSection, ...] = field(default=())


def _extmap(extension: tuple[int, str]) -> str:
    """RFC 8285 section 5."""
    return "a=extmap:{} {}".format(*extension)


def candidate_lines(addresses: Iterable[str], udp_port: int, tcp_port: int) -> list[str]:
    """Host candidates for UDP (RFC 8839 section 5.1), then for TCP (RFC 6544 section 4.5), unless `tcp_port` is 0.

    The first address is preferred (RFC 8445 section 5.1.2), and UDP before TCP (RFC 6544 section 4.2).
    """
    hosts = list(enumerate(addresses))
    lines = [f"candidate:{i + 1} 1 udp {_priority(126, 65535 - i)} {host} {udp_port} typ host" for i, host in hosts]
    for i, host in hosts if tcp_port else ():
        priority = _priority(99, 4 << 13 | 8191 - i)  # direction preference of a passive host candidate
        lines.append(f"candidate:{i + 1001} 1 tcp {priority} {host} {tcp_port} typ host tcptype passive")
    return lines


def _priority(type_preference: int, local_preference: int) -> int:
    return type_preference << 24 | local_preference << 8 | 255


def build_offer(session: int, version: int, transport: Transport, sections: Sequence[Section]) -> str:
    """The offer for `sections`; `session` and `version` are those of the o-line (RFC 8829 section 5.2)."""
    lines = ["v=0", f"o=- {session} {version} IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite"]
    lines.append("a=group:BUNDLE " + " ".join(str(mid) for mid in range(len(sections))))
    lines += ["a=extmap-allow-mixed", "a=msid-semantic: WMS *"]
    for mid, section in enumerate(sections):
        lines += _section_lines(mid, section, transport)
    return "\r\n".join(lines) + "\r\n"


def _section_lines(mid: int, section: Section, transport: Transport) -> Iterable[str]:
    repaired = section.direction == "recvonly" or bool(section.stream and section.stream.rtx_ssrc)
    types, codec_lines = _codecs(
        section.kind, section.direction, section.types, section.opus, repaired, section.redundant
    )
    yield f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {types}"
    yield "c=IN IP4 0.0.0.0"
    yield "a=rtcp:9 IN IP4 0.0.0.0"
    yield f"a=ice-ufrag:{transport.ufrag}"
    yield f"a=ice-pwd:{transport.pwd}"
    yield f"a=fingerprint:sha-256 {transport.fingerprint}"
    yield "a=setup:actpass"
    yield f"a=mid:{mid}"
    yield f"a={section.direction}"
    yield "a=rtcp-mux"
    yield "a=rtcp-rsize"
    yield from codec_lines
    if section.direction == "recvonly":
        yield from map(_extmap, EXTENSIONS_RECEIVED[section.kind])
    if section.simulcast:
        # while inactive, too: a transceiver keeps its encodings, and Chromium refuses its own answer if the offer lacks
        # what they need
        yield from map(_extmap, EXTENSIONS_OF_LAYERS)
        yield from (f"a=rid:{rid} recv" for rid in RIDS)
        yield "a=simulcast:recv " + ";".join(RIDS)
    if section.stream is not None:
        yield from _stream_lines(section.stream, section.kind)
    if mid == 0 or not transport.bundled:
        yield from (f"a={candidate}" for candidate in transport.candidates)
        yield "a=end-of-candidates"


def _stream_lines(stream: Stream, kind: Kind) -> Iterable[str]:
    yield from map(_extmap, EXTENSIONS_SENT[kind])
    yield f"a=msid:{stream.stream} {stream.track}"
    if stream.rtx_ssrc:  # without the group and both lines Firefox cannot match RTX to its media
        yield f"a=ssrc-group:FID {stream.ssrc} {stream.rtx_ssrc}"
    yield f"a=ssrc:{stream.ssrc} cname:{stream.stream}"
    if stream.rtx_ssrc:
        yield f"a=ssrc:{stream.rtx_ssrc} cname:{stream.stream}"


@lru_cache(256)  # an offer in a room of 100 has 200 sections, of six kinds
def _codecs(
    kind: Kind, direction: Direction, allowed: frozenset[int], opus: Opus, repaired: bool, redundant: bool
) -> tuple[str, tuple[str, ...]]:
    """The payload types of a section, and the lines that describe them."""
    unused = {"goog-remb"} if direction == "recvonly" else {"transport-cc"} if kind == "audio" else set[str]()
    codecs = [codec for codec in CODECS[kind] if kind == "audio" or codec.payload_type in allowed]
    if kind == "audio" and redundant:
        codecs.insert(0, RED)
    types = [pt for codec in codecs for pt in (codec.payload_type, codec.rtx if repaired else None) if pt is not None]
    lines = []
    for codec in codecs:
        lines.append(f"a=rtpmap:{codec.payload_type} {codec.rtpmap}")
        if codec.fmtp:
            parameters = opus.parameters(direction) if codec is OPUS else ""
            lines.append(f"a=fmtp:{codec.payload_type} {codec.fmtp}{parameters}")
        lines += [f"a=rtcp-fb:{codec.payload_type} {feedback}" for feedback in codec.feedback if feedback not in unused]
        if repaired and codec.rtx is not None:
            lines += [f"a=rtpmap:{codec.rtx} rtx/90000", f"a=fmtp:{codec.rtx} apt={codec.payload_type}"]
    return " ".join(map(str, types)), tuple(lines)


_FINGERPRINT = re.compile(r"([a-z0-9-]{3,16}) ((?:[0-9A-F]{2}:){7,63}[0-9A-F]{2})\Z", re.IGNORECASE)
_HASH_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
"""Hashes that aiortc verifies; fingerprints of others are ignored (RFC 8122 section 5)."""
_MEDIA = re.compile(r"m=(audio|video) ([0-9]{1,5}) UDP/TLS/RTP/SAVPF( [0-9]{1,3})+\Z")
_SSRC = re.compile(r"a=ssrc:([0-9]{1,10}) ")
_SIMULCAST = re.compile(r"a=simulcast:send ([a-zA-Z0-9_~,;-]{1,64})( recv .*)?\Z")
_DIRECTIONS = {
    "a=sendrecv": (True, True),
    "a=sendonly": (True, False),
    "a=recvonly": (False, True),
    "a=inactive": (False, False),
}


def parse_answer(sdp: str, offered: Sequence[Section]) -> AnswerSdp:
    """Parses an answer to an offer of these sections. Raises BadAnswer, saying what is wrong.

    Sizes are checked before anything is parsed: at most SECTION_BYTES per section, as many sections as were offered,
    the same mids and kinds in the same order.
    """
    if len(sdp) > SECTION_BYTES * (len(offered) + 1):
        raise BadAnswer("The answer is too long for its offer.")
    head, *blocks = re.split(r"\r?\n(?=m=)", sdp)
    if len(blocks) != len(offered):
        raise BadAnswer(f"The answer has {len(blocks)} sections, the offer {len(offered)}.")
    shared = head.split("\n")
    fingerprints: list[tuple[str, str]] = []
    setups: list[str] = []
    ice = None
    sections = []
    for mid, (block, section) in enumerate(zip(blocks, offered, strict=True)):
        if len(block) > SECTION_BYTES:
            raise BadAnswer(f"Section {mid} of the answer is longer than {SECTION_BYTES} bytes.")
        lines = [line.rstrip("\r") for line in block.split("\n")]
        sections.append(_answer_section(str(mid), section, lines))
        if not fingerprints:
            _read_transport([*lines, *(line.rstrip("\r") for line in shared)], fingerprints, setups)
        ice = ice or _ice("\n".join([*lines, *(line.rstrip("\r") for line in shared)]))
    if not fingerprints:
        raise BadAnswer("The answer has no usable fingerprint.")
    if not setups or setups[0] not in ("active", "passive"):
        raise BadAnswer("The answer must choose a=setup:active or passive.")
    return AnswerSdp(ice, tuple(fingerprints[:8]), "active" if setups[0] == "active" else "passive", tuple(sections))


def _answer_section(mid: str, offered: Section, lines: list[str]) -> AnswerSection:
    media = _MEDIA.match(lines[0])
    if media is None or media[1] != offered.kind:
        raise BadAnswer(f"Section {mid} of the answer is not the offered {offered.kind} section.")
    if f"a=mid:{mid}" not in lines:
        raise BadAnswer(f"Section {mid} of the answer has another mid.")
    sends, receives = next((_DIRECTIONS[line] for line in lines if line in _DIRECTIONS), (True, True))
    # a rejected section (RFC 8829 section 5.3.1) has port 0: it accepts no codec
    named = {int(pt) for pt in lines[0].split()[3:]} if int(media[2]) != 0 else set()
    types = frozenset(codec.payload_type for codec in CODECS[offered.kind] if codec.payload_type in named)
    usable = bool(types)
    ssrcs = dict.fromkeys(int(found[1]) for found in map(_SSRC.match, lines) if found)
    return AnswerSection(
        mid,
        offered.kind,
        sends and usable and offered.direction == "recvonly",
        receives and usable and offered.direction == "sendonly",
        tuple(ssrc for ssrc in list(ssrcs)[:ANSWER_SSRCS] if 0 < ssrc <= 0xFFFFFFFF),
        _opus(lines) if offered.kind == "audio" else Opus(),
        types,
        _rids(lines) if offered.simulcast else (),
        any(codec.rtx in named for codec in CODECS[offered.kind] if codec.rtx is not None),
        offered.redundant and usable and RED.payload_type in named,
    )


def _rids(lines: list[str]) -> tuple[str, ...]:
    """The layers of a=simulcast (RFC 8853 section 5.1) in the server's order; alternatives and paused layers count like
    others."""
    found = next(filter(None, map(_SIMULCAST.match, lines)), None)
    said = set(re.split("[,;]", found[1].replace("~", ""))) if found else set()
    return tuple(rid for rid in RIDS if rid in said)


_ICE = [re.compile(rf"^a=ice-{name}:([A-Za-z0-9+/]{{{low},256}})$", re.MULTILINE) for name, low in
        (("ufrag", 4), ("pwd", 22))]  # fmt: skip


def _ice(text: str) -> tuple[str, str] | None:
    ufrag, pwd = (pattern.search(text) for pattern in _ICE)
    return (ufrag[1], pwd[1]) if ufrag is not None and pwd is not None else None


def _opus(lines: list[str]) -> Opus:
    prefix = f"a=fmtp:{OPUS.payload_type} "
    said = next((line.removeprefix(prefix) for line in lines if line.startswith(prefix)), "")
    parameters = {parameter.strip() for parameter in said.split(";")}
    return Opus("sprop-stereo=1" in parameters, "usedtx=1" in parameters)


def _read_transport(lines: list[str], fingerprints: list[tuple[str, str]], setups: list[str]) -> None:
    for line in lines:
        if line.startswith("a=fingerprint:"):
            found = _FINGERPRINT.match(line[len("a=fingerprint:") :])
            if found is None:
                raise BadAnswer("The answer's fingerprint is malformed.")
            algorithm, value = found[1].lower(), found[2].upper()
            if algorithm in _HASH_BYTES:
                if len(value) != 3 * _HASH_BYTES[algorithm] - 1:
                    raise BadAnswer("The answer's fingerprint is malformed.")
                fingerprints.append((algorithm, value))
        elif line.startswith("a=setup:"):
            setups.append(line[len("a=setup:") :])
