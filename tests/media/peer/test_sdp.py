from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from aioice import Candidate
from aiortc.sdp import SessionDescription
from hypothesis import given
from hypothesis import strategies as st

from sfu.errors import BadAnswer
from sfu.media.peer import sdp
from sfu.media.peer.sdp import (
    AnswerSection,
    Opus,
    Section,
    Stream,
    Transport,
    build_offer,
    candidate_lines,
    parse_answer,
)
from sfu.media.rtp import codecs

ANSWERS: dict[str, list[str]] = json.loads((Path(__file__).parents[2] / "data" / "answers.json").read_text())
"""What browsers and pion said to these offers, by lines."""
PUBLISH = [Section("audio", "recvonly"), Section("video", "recvonly")]
MICROPHONE = Section("audio", "sendonly", Stream(1111, "bob", "bob-microphone"))
CAMERA = Section("video", "sendonly", Stream(2222, "bob", "bob-camera"))
SUBSCRIBE = [*PUBLISH, MICROPHONE, CAMERA]
REUSE = [*PUBLISH, Section("audio", "inactive"), Section("video", "inactive")]
OFFERS = {"publish": PUBLISH, "bare": PUBLISH, "subscribe": SUBSCRIBE, "bare-subscribe": SUBSCRIBE, "reuse": REUSE}
TRANSPORT = Transport("ufragufr", "p" * 24, ":".join(["AB"] * 32), candidate_lines(["127.0.0.1"], 9999, 0))

sections = st.lists(
    st.one_of(
        st.builds(Section, st.sampled_from(["audio", "video"]), st.sampled_from(["recvonly", "inactive"])),
        st.builds(
            lambda kind, ssrc: Section(kind, "sendonly", Stream(ssrc, "bob", f"bob-{ssrc}")),
            st.sampled_from(["audio", "video"]),
            st.integers(1, 0xFFFFFFFF),
        ),
    ),
    min_size=1,
    max_size=20,
)


def offered(name: str) -> list[Section]:
    return OFFERS[name.partition(" ")[2]]


def answer(name: str = "chromium subscribe") -> str:
    return "\r\n".join(ANSWERS[name]) + "\r\n"


def said(name: str) -> list[tuple[bool, bool]]:
    return [(section.sends, section.receives) for section in parse_answer(answer(name), offered(name)).sections]


# --- offers -----------------------------------------------------------------------------------------------------------


@given(sections, st.booleans())
def test_offers_parse_and_come_back(offer: list[Section], bundled: bool) -> None:
    transport = replace(TRANSPORT, bundled=bundled)
    parsed = SessionDescription.parse(build_offer(77, 3, transport, offer))
    again = SessionDescription.parse(str(parsed))
    for description in (parsed, again):
        assert [m.kind for m in description.media] == [s.kind for s in offer]
        assert [m.direction for m in description.media] == [s.direction for s in offer]
        assert [m.rtp.muxId for m in description.media] == [str(i) for i in range(len(offer))]
        assert [m.ssrc[0].ssrc if m.ssrc else None for m in description.media] == [
            s.stream and s.stream.ssrc for s in offer
        ]
    (bundle,) = parsed.group
    assert (bundle.semantic, bundle.items) == ("BUNDLE", [str(i) for i in range(len(offer))])
    assert all(m.ice.iceLite for m in parsed.media)
    assert all((m.ice.usernameFragment, m.ice.password) == (TRANSPORT.ufrag, TRANSPORT.pwd) for m in parsed.media)
    assert all(m.dtls.fingerprints[0].value == TRANSPORT.fingerprint for m in parsed.media)
    others = 0 if bundled else 1
    assert [len(m.ice_candidates) for m in parsed.media] == [1] + [others] * (len(offer) - 1)


@given(sections)
def test_offers_keep_the_grammar(offer: list[Section]) -> None:
    """RFC 8866: single-letter types, CRLF, nothing empty; RFC 8829 section 5.2.1: session id below 2^63."""
    text = build_offer(2**53 - 1, 1, TRANSPORT, offer)
    assert text.endswith("\r\n")
    lines = text[:-2].split("\r\n")
    assert all(re.fullmatch(r"[vostmca]=\S.*", line) for line in lines)
    assert lines[:4] == ["v=0", f"o=- {2**53 - 1} 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    assert not any(line != line.rstrip() for line in lines)


def test_red_stands_before_opus_where_it_is_offered() -> None:
    """That is how Chromium learns that it is to send it."""
    offer = [replace(section, redundant=section.kind == "audio") for section in SUBSCRIBE]
    microphone, _, heard, _ = build_offer(1, 1, TRANSPORT, offer).split("m=")[1:]
    for block in (microphone, heard):
        assert block.startswith("audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n")
        assert "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:111 opus" in block
    assert "red/" not in build_offer(1, 1, TRANSPORT, SUBSCRIBE)


@pytest.mark.parametrize(
    ("line", "redundant", "sends"),
    [("9 UDP/TLS/RTP/SAVPF 63 111", True, True), ("9 UDP/TLS/RTP/SAVPF 111 63", True, True),
     ("9 UDP/TLS/RTP/SAVPF 111", False, True), ("9 UDP/TLS/RTP/SAVPF 63", False, False),
     ("0 UDP/TLS/RTP/SAVPF 63 111", False, False)],
)  # fmt: skip
def test_an_answer_says_whether_it_takes_red(line: str, redundant: bool, sends: bool) -> None:
    text = re.sub(r"m=audio .*\r", f"m=audio {line}\r", answer(), count=1)
    offer = [replace(SUBSCRIBE[0], redundant=True), *SUBSCRIBE[1:]]
    said = parse_answer(text, offer).sections[0]
    assert (said.redundant, said.sends) == (redundant, sends)
    assert not parse_answer(text, SUBSCRIBE).sections[0].redundant


def test_one_choice_of_numbers_for_the_whole_room() -> None:
    """A payload type or extension id means the same wherever it stands, so that packets need no remapping."""
    for field in (r"a=rtpmap:(\d+) (.*)", r"a=extmap:(\d+) (.*)", r"a=fmtp:(\d+) (.*)"):
        found = re.findall(field, build_offer(1, 1, TRANSPORT, [*SUBSCRIBE, *REUSE]).replace("\r", ""))
        assert len(dict(found)) == len(set(found))


def test_subscribers_are_not_offered_what_is_between_us_and_publishers() -> None:
    head, *blocks = build_offer(1, 1, TRANSPORT, SUBSCRIBE).split("m=")
    assert f"a=extmap:1 {codecs.AUDIO_LEVEL}\r\n" in blocks[0]
    assert codecs.AUDIO_LEVEL not in blocks[1]
    for block in blocks[:2]:
        assert codecs.TRANSPORT_CC in block
        assert "transport-cc" in block
    for block in blocks[2:]:
        assert "rtx" not in block
    assert "extmap" not in blocks[2]
    assert "transport-cc" not in blocks[2]
    assert f"a=extmap:5 {codecs.TRANSPORT_CC}\r\n" in blocks[3]
    assert "a=rtcp-fb:96 transport-cc\r\n" in blocks[3]
    assert "goog-remb" in blocks[3]  # of clients that number nothing
    assert "goog-remb" not in blocks[1]
    assert "a=rtcp-fb:111 nack\r\n" in blocks[0]
    assert "a=rtcp-fb:111 nack\r\n" in blocks[2]
    assert "nack pli" in blocks[3]
    assert "ice-lite" in head


def test_vp8_comes_first_and_a_publisher_may_be_offered_fewer_codecs() -> None:
    only = replace(PUBLISH[1], types=frozenset({96, 45}))
    text = build_offer(1, 1, TRANSPORT, [PUBLISH[1], only, CAMERA])
    assert re.findall("m=video 9 UDP/TLS/RTP/SAVPF (.*)\r", text) == [
        "96 97 98 99 45 46 102 103",
        "96 97 45 46",
        "96 98 45 102",
    ]
    assert re.findall(r"a=rtpmap:\d+ (\w+)", text.split("m=")[2]) == ["VP8", "rtx", "AV1", "rtx"]
    for types in (frozenset({96}), frozenset({102, 96}), codecs.VIDEO_TYPES):
        offered = re.findall("SAVPF (.*)\r", build_offer(1, 1, TRANSPORT, [replace(PUBLISH[1], types=types)]))
        assert offered[0].startswith("96 97")


@pytest.mark.parametrize(
    ("line", "types"),
    [("9 UDP/TLS/RTP/SAVPF 96 97", {96}), ("9 UDP/TLS/RTP/SAVPF 102 98 99 96 45 120", {96, 98, 102, 45}),
     ("9 UDP/TLS/RTP/SAVPF 120", set()), ("0 UDP/TLS/RTP/SAVPF 96", set())],
)  # fmt: skip
def test_an_answer_says_which_codecs_it_takes(line: str, types: set[int]) -> None:
    text = changed("m=video 9 UDP/TLS/RTP/SAVPF 96\r", f"m=video {line}\r")
    assert parse_answer(text, SUBSCRIBE).sections[3].types == types


@pytest.mark.parametrize(
    ("said", "opus", "publisher", "subscriber"),
    [
        ("minptime=10;useinbandfec=1", Opus(), "", ""),
        ("stereo=1;useinbandfec=1", Opus(), "", ""),  # Firefox always says so: what it takes, not what it sends
        ("useinbandfec=1; sprop-stereo=1", Opus(stereo=True), ";stereo=1", ";sprop-stereo=1"),
        ("usedtx=1;useinbandfec=1", Opus(dtx=True), ";usedtx=1", ";usedtx=1"),
        ("sprop-stereo=1;usedtx=1", Opus(True, True), ";stereo=1;usedtx=1", ";sprop-stereo=1;usedtx=1"),
        ("sprop-stereo=10;usedtx=0;;=", Opus(), "", ""),
    ],
)
def test_how_a_publisher_sends_sound_is_passed_on(said: str, opus: Opus, publisher: str, subscriber: str) -> None:
    text = changed("minptime=10;useinbandfec=1", said, "chromium publish")
    assert parse_answer(text, PUBLISH).sections[0].opus == opus
    offer = build_offer(1, 1, TRANSPORT, [replace(PUBLISH[0], opus=opus), PUBLISH[1], replace(MICROPHONE, opus=opus)])
    assert re.findall(r"a=fmtp:111 minptime=10;useinbandfec=1(.*)\r", offer) == [publisher, subscriber]


@pytest.mark.parametrize("direction", ["recvonly", "inactive"])
@pytest.mark.parametrize("simulcast", [True, False])
def test_an_inactive_section_keeps_its_layers(direction: codecs.Direction, simulcast: bool) -> None:
    """The browser's transceiver has its encodings still, and Chromium refuses its own answer without what they need."""
    lines = build_offer(1, 1, TRANSPORT, [Section("video", direction, simulcast=simulcast)]).splitlines()
    wanted = [f"a=extmap:{codecs.RID_ID} {codecs.RID}", "a=rid:q recv", "a=simulcast:recv q;h;f"]
    assert [line in lines for line in wanted] == [simulcast] * 3
    assert f"a={direction}" in lines


ADDRESSES = ["127.0.0.1", "192.0.2.1", "::1", "2001:db8::7"]


def test_candidates() -> None:
    lines = candidate_lines(ADDRESSES, 8080, 443)
    parsed = [Candidate.from_sdp(line.removeprefix("candidate:")) for line in lines]
    assert [(c.host, c.port, c.type, c.transport, c.component, c.tcptype) for c in parsed] == [
        *((address, 8080, "host", "udp", 1, None) for address in ADDRESSES),
        *((address, 443, "host", "tcp", 1, "passive") for address in ADDRESSES),
    ]
    assert [c.priority for c in parsed] == sorted({c.priority for c in parsed}, reverse=True)
    assert parsed[4].priority == 1671430143
    assert len({c.foundation for c in parsed}) == 8
    assert all(0 < c.priority < 2**31 for c in parsed)


def test_a_new_address_changes_no_earlier_candidate() -> None:
    """The lines that are new are told to clients."""
    assert set(candidate_lines(ADDRESSES[:2], 8080, 443)) < set(candidate_lines(ADDRESSES, 8080, 443))


def test_without_a_port_for_tcp_there_is_no_candidate_for_it() -> None:
    assert candidate_lines(ADDRESSES, 8080, 0) == candidate_lines(ADDRESSES, 8080, 443)[:4]


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["chromium", "firefox", "pion"])
def test_a_client_that_publishes(client: str) -> None:
    parsed = parse_answer(answer(f"{client} publish"), PUBLISH)
    assert parsed.setup == "active"
    assert [(s.mid, s.kind, s.sends, s.receives) for s in parsed.sections] == [
        ("0", "audio", True, False),
        ("1", "video", True, False),
    ]
    assert all(algorithm == "sha-256" for algorithm, _ in parsed.fingerprints)
    lines = ANSWERS[f"{client} publish"]
    start = next(i for i, line in enumerate(lines) if line.startswith("m=video"))
    media = next(line for line in lines[start:] if line.startswith("a=ssrc:"))
    assert media.startswith(f"a=ssrc:{parsed.sections[1].ssrcs[0]} ")


@pytest.mark.parametrize("client", ["chromium", "firefox"])
def test_the_first_ssrc_is_the_media_and_the_second_its_retransmissions(client: str) -> None:
    group = next(line for line in ANSWERS[f"{client} publish"] if line.startswith("a=ssrc-group:FID"))
    media, retransmissions = map(int, group.split()[1:])
    parsed = parse_answer(answer(f"{client} publish"), PUBLISH)
    assert parsed.sections[1].ssrcs == (media, retransmissions)


@pytest.mark.parametrize("client", ["chromium", "firefox"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("publish", [(True, False), (True, False)]),
        ("subscribe", [(True, False), (True, False), (False, True), (False, True)]),
        ("reuse", [(True, False), (True, False), (False, False), (False, False)]),
        ("bare", [(False, False), (False, False)]),
        ("bare-subscribe", [(False, False), (False, False), (False, True), (False, True)]),
    ],
)
def test_what_browsers_say(client: str, name: str, expected: list[tuple[bool, bool]]) -> None:
    assert said(f"{client} {name}") == expected


@pytest.mark.parametrize("client", ["chromium", "firefox"])
def test_the_transport_stays_between_answers(client: str) -> None:
    parsed = [parse_answer(answer(f"{client} {n}"), OFFERS[n]) for n in ("publish", "subscribe", "reuse")]
    assert len({p.fingerprints for p in parsed}) == 1


def changed(old: str, new: str, name: str = "chromium subscribe", count: int = -1) -> str:
    text = answer(name)
    assert old in text
    return text.replace(old, new, count)


def refused(text: str, offer: list[Section] = SUBSCRIBE) -> str:
    with pytest.raises(BadAnswer) as caught:
        parse_answer(text, offer)
    return str(caught.value)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrst+/\r\n", ("abcd", "abcdefghijklmnopqrst+/")),
        ("a=ice-ufrag:abc\r\na=ice-pwd:abcdefghijklmnopqrst+/\r\n", None),
        ("a=ice-ufrag:abcd\r\na=ice-pwd:short\r\n", None),
        ("a=ice-ufrag:ab:cd\r\na=ice-pwd:abcdefghijklmnopqrst+/\r\n", None),
        ("a=ice-ufrag:abcd\r\na=ice-pwd:" + "x" * 257 + "\r\n", None),
        ("", None),
    ],
)
def test_ice_credentials(lines: str, found: tuple[str, str] | None) -> None:
    """RFC 8839 section 5.4; above all sections or in each."""
    bare = re.sub(r"a=ice-(ufrag|pwd):.*\r\n", "", answer())
    assert parse_answer(bare.replace("t=0 0\r\n", "t=0 0\r\n" + lines), SUBSCRIBE).ice == found
    inside = re.sub(r"(a=mid:\d+\r\n)", lambda mid: mid[1] + lines, bare)
    assert parse_answer(inside, SUBSCRIBE).ice == found


def test_line_ends_may_be_bare() -> None:
    name = "chromium subscribe"
    assert parse_answer("\n".join(ANSWERS[name]), SUBSCRIBE) == parse_answer(answer(), SUBSCRIBE)


def test_no_direction_means_both_ways() -> None:
    """RFC 8866 section 6.7: sendrecv is the default; the server takes of it what it offered."""
    text = re.sub(r"a=(sendonly|recvonly)\r\n", "", answer())
    assert parse_answer(text, SUBSCRIBE).sections == parse_answer(answer(), SUBSCRIBE).sections


@pytest.mark.parametrize("direction", ["sendrecv", "sendonly", "recvonly", "inactive"])
def test_a_client_can_take_no_more_than_was_offered(direction: str) -> None:
    text = re.sub(r"a=(sendonly|recvonly)\r\n", f"a={direction}\r\n", answer())
    sends, receives = direction in ("sendrecv", "sendonly"), direction in ("sendrecv", "recvonly")
    assert [(s.sends, s.receives) for s in parse_answer(text, SUBSCRIBE).sections] == [
        (sends, False),
        (sends, False),
        (False, receives),
        (False, receives),
    ]
    assert all(not s.sends and not s.receives for s in parse_answer(text, REUSE).sections[2:])


def test_a_rejected_section_neither_sends_nor_receives() -> None:
    """RFC 8829 section 5.3.1: port 0."""
    text = changed("m=video 9 ", "m=video 0 ", count=1)
    section = parse_answer(text, SUBSCRIBE).sections[1]
    assert (section.sends, section.receives) == (False, False)
    assert parse_answer(text, SUBSCRIBE).sections[3].receives


def test_a_section_without_our_codec_neither_sends_nor_receives() -> None:
    text = changed("SAVPF 96 97\r\n", "SAVPF 120 121\r\n")
    assert not parse_answer(text, SUBSCRIBE).sections[1].sends
    assert parse_answer(text, SUBSCRIBE).sections[0].sends


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "0 sections", id="empty"),
        pytest.param("v=0\r\n", "0 sections", id="no sections"),
        pytest.param(answer("chromium publish"), "2 sections, the offer 4", id="too few"),
        pytest.param(answer() + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:4\r\n", "5 sections", id="too many"),
        pytest.param(changed("a=mid:2", "a=mid:3"), "another mid", id="wrong mid"),
        pytest.param(changed("a=mid:2\r\n", ""), "another mid", id="no mid"),
        pytest.param(changed("m=audio", "m=video"), "offered audio", id="wrong kind"),
        pytest.param(changed("m=audio", "m=application"), "offered audio", id="data channel"),
        pytest.param(changed("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "offered audio", id="no DTLS"),
        pytest.param(changed("SAVPF 111", "SAVPF"), "offered audio", id="no payload types"),
        pytest.param(changed("SAVPF 111", "SAVPF 111111"), "offered audio", id="no such payload type"),
        pytest.param(changed("m=audio 9", "m=audio -1"), "offered audio", id="no such port"),
        pytest.param(re.sub("a=fingerprint:.*\r\n", "", answer()), "no usable fingerprint", id="no fingerprint"),
        pytest.param(changed("sha-256 61:", "sha-256 6:"), "malformed", id="short hex"),
        pytest.param(changed("sha-256 61:", "sha-256 "), "malformed", id="a byte missing"),
        pytest.param(changed("sha-256 ", ""), "malformed", id="no algorithm"),
        pytest.param(changed("sha-256 ", "sha-1 "), "no usable fingerprint", id="a hash too weak"),
        pytest.param(changed("sha-256 ", "md5 "), "no usable fingerprint", id="a hash unknown"),
        pytest.param(re.sub("a=setup:.*\r\n", "", answer()), "a=setup", id="no setup"),
        pytest.param(changed("a=setup:active", "a=setup:actpass"), "a=setup", id="setup undecided"),
        pytest.param(changed("a=setup:active", "a=setup:holdconn"), "a=setup", id="setup on hold"),
        pytest.param(changed("a=mid:1\r\n", "a=mid:1\r\n" + "a=x\r\n" * 1000), "longer than", id="long section"),
        pytest.param("v=0\r\n" + "a=x\r\n" * 5000, "too long", id="long head"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, says: str) -> None:
    assert re.search(says, refused(text))


def test_a_fingerprint_may_stand_above_all_sections() -> None:
    line = next(line for line in ANSWERS["chromium subscribe"] if line.startswith("a=fingerprint"))
    text = changed(line + "\r\n", "").replace("t=0 0\r\n", f"t=0 0\r\n{line}\r\na=setup:active\r\n")
    text = re.sub(r"(m=.*?)a=setup:active\r\n", r"\1", text, flags=re.DOTALL)
    assert parse_answer(text, SUBSCRIBE) == parse_answer(answer(), SUBSCRIBE)


def test_fingerprints_of_other_hashes_are_passed_over() -> None:
    text = changed("a=setup:active", "a=fingerprint:sha-1 " + ":".join(["AB"] * 20) + "\r\na=setup:active")
    assert parse_answer(text, SUBSCRIBE) == parse_answer(answer(), SUBSCRIBE)


def test_a_fingerprint_reads_the_same_in_either_case() -> None:
    line = next(line for line in ANSWERS["chromium subscribe"] if line.startswith("a=fingerprint"))
    lower = changed(line, line.replace("sha-256", "SHA-256").replace("C3", "c3"))
    assert parse_answer(lower, SUBSCRIBE).fingerprints == parse_answer(answer(), SUBSCRIBE).fingerprints


@pytest.mark.parametrize(("line", "kept"), [("0", False), ("1", True), ("4294967295", True), ("4294967296", False)])
def test_ssrcs_are_32_bits(line: str, kept: bool) -> None:
    text = re.sub(r"a=ssrc:2958163809 ", f"a=ssrc:{line} ", answer())
    assert parse_answer(text, SUBSCRIBE).sections[0].ssrcs == ((int(line),) if kept else ())


def test_ssrcs_are_bounded() -> None:
    text = changed("a=mid:0\r\n", "a=mid:0\r\n" + "".join(f"a=ssrc:{i} cname:x\r\n" for i in range(1, 100)))
    assert parse_answer(text, SUBSCRIBE).sections[0].ssrcs == tuple(range(1, 1 + sdp.ANSWER_SSRCS))


def test_a_room_of_100_fits() -> None:
    offer = [*PUBLISH, *[MICROPHONE, CAMERA] * 99]
    lines = ANSWERS["chromium subscribe"]
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")] + [len(lines)]
    blocks = ["\r\n".join(lines[a:b]) for a, b in pairwise(starts)]
    text = "\r\n".join(lines[: starts[0]] + blocks[:2]) + "\r\n"
    for mid in range(2, 200):
        text += re.sub(r"a=mid:\d", f"a=mid:{mid}", blocks[2 + mid % 2]) + "\r\n"
    assert sum(section.receives for section in parse_answer(text, offer).sections) == 198


# --- hostile answers --------------------------------------------------------------------------------------------------

names = st.sampled_from(sorted(ANSWERS))
junk = st.one_of(
    st.text(max_size=30), st.sampled_from(["\r\n", "m=", "\r\nm=", "a=mid:0", "a=", "\0", ":", " ", "é", "-1"])
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, list[Section]]:
    """A real answer with lines dropped, doubled, moved and cut, and characters overwritten."""
    name = draw(names)
    lines = list(ANSWERS[name])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "swap", "cut", "insert", "overwrite"])):
            case "drop" if len(lines) > 1:
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
            case "insert":
                column = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:column] + draw(junk) + lines[at][column:]
            case _:
                column = draw(st.integers(0, len(lines[at])))
                patch = draw(junk)
                lines[at] = lines[at][:column] + patch + lines[at][column + len(patch) :]
    return "\r\n".join(lines), offered(name)


def check(text: str, offer: list[Section]) -> None:
    try:
        parsed = parse_answer(text, offer)
    except BadAnswer:
        return
    assert [s.mid for s in parsed.sections] == [str(i) for i in range(len(offer))]
    assert 1 <= len(parsed.fingerprints) <= 8
    for section, wanted in zip(parsed.sections, offer, strict=True):
        assert isinstance(section, AnswerSection)
        assert not section.sends or wanted.direction == "recvonly"
        assert not section.receives or wanted.direction == "sendonly"
        assert all(0 < ssrc < 2**32 for ssrc in section.ssrcs)


@given(mutated())
def test_mutated_answers_are_read_or_refused(case: tuple[str, list[Section]]) -> None:
    check(*case)


@given(st.text(max_size=2000), st.integers(0, 4))
def test_nonsense_is_read_or_refused(text: str, sections: int) -> None:
    check(text, SUBSCRIBE[:sections])
