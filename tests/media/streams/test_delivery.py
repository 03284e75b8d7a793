"""What report blocks tell of a track's way to a subscriber."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.rtp.rtcp import ReportBlock
from sfu.media.streams.delivery import JITTER_MAX_S, REPORTS, ROUND_TRIP_MAX_S, SENDER_REPORTS, Delivery, Sent

START = 0x10000 + 65_530
u32 = st.integers(0, 0xFFFFFFFF)


def block(*, lost: int = 0, jitter: int = 0, last_sr: int = 0, delay_s: float = 0.0) -> ReportBlock:
    return ReportBlock(1, 0, lost, 0, jitter, last_sr, int(delay_s * 65536))


def test_nothing_is_known_before_the_first_report() -> None:
    delivery = Delivery()
    assert (delivery.loss, delivery.round_trip_s, delivery.expected) == (None, None, 0)


def sent(packets: int, *, gaps: int = 0, n_bytes: int = 0) -> Sent:
    return Sent(packets, START + packets + gaps, n_bytes)


def reporting() -> Delivery:
    """With a first report, which tells where the counting begins."""
    delivery = Delivery()
    delivery.reported(block(), 90_000, sent(0), 0.0)
    return delivery


def test_loss_is_of_what_was_sent_since_the_last_report() -> None:
    delivery = reporting()
    delivery.reported(block(lost=25), 90_000, sent(100), 1.0)
    assert (delivery.loss, delivery.expected, delivery.lost) == (0.25, 100, 25)
    delivery.reported(block(lost=25), 90_000, sent(400), 2.0)
    assert (delivery.expected, delivery.lost) == (400, 25)
    assert delivery.loss == pytest.approx(0.175)


def test_a_report_while_nothing_is_sent_says_nothing_of_loss() -> None:
    delivery = reporting()
    delivery.reported(block(lost=50), 90_000, sent(100), 1.0)
    delivery.reported(block(lost=99), 90_000, sent(100), 2.0)
    assert (delivery.loss, delivery.expected, delivery.lost) == (0.5, 100, 50)


def test_what_was_sent_again_was_lost_though_the_receiver_has_it() -> None:
    delivery = reporting()
    delivery.resent = 25
    delivery.reported(block(), 90_000, sent(100), 1.0)
    assert (delivery.loss, delivery.expected, delivery.lost) == (0.2, 125, 25)
    delivery.resent = 30
    delivery.reported(block(lost=5), 90_000, sent(195), 2.0)
    assert (delivery.expected, delivery.lost) == (225, 35)


def test_what_the_publisher_lost_is_not_this_way_s_loss() -> None:
    """Ten numbers a second never came from the publisher, and the subscriber counts them a report later."""
    delivery = reporting()
    for i in range(1, 30):
        delivery.reported(block(lost=10 * (i - 1)), 90_000, sent(90 * i, gaps=10 * i), float(i))
    assert delivery.lost == 0
    for i in range(30, 60):
        delivery.reported(block(lost=10 * (i - 1) + 9 * (i - 29)), 90_000, sent(90 * i, gaps=10 * i), float(i))
    assert delivery.lost == 270
    assert delivery.loss == pytest.approx(0.1, abs=1e-3)


def test_losses_are_seen_again_after_a_receiver_began_to_count_anew() -> None:
    delivery = reporting()
    delivery.reported(block(lost=5000), 90_000, sent(10_000), 1.0)
    for i in range(1, 20):
        delivery.reported(block(lost=10 * i), 90_000, sent(10_000 + 100 * i), 1.0 + i)
    assert delivery.lost == 5000 + 10 * (19 - REPORTS)


def test_the_bitrate_is_that_between_two_reports() -> None:
    delivery = Delivery()
    delivery.reported(block(), 90_000, sent(100, n_bytes=100_000), 10.0)
    assert delivery.bitrate_bps == 0
    delivery.reported(block(), 90_000, sent(200, n_bytes=350_000), 12.0)
    assert delivery.bitrate_bps == 1_000_000


def test_jitter_is_in_the_clock_of_the_media() -> None:
    delivery = Delivery()
    delivery.reported(block(jitter=480), 48_000, sent(1), 1.0)
    assert delivery.jitter_s == pytest.approx(0.01)
    delivery.reported(block(jitter=0xFFFFFFFF), 48_000, sent(1), 2.0)
    assert delivery.jitter_s == JITTER_MAX_S


def test_the_round_trip_is_from_passing_a_sender_report_on_to_its_answer() -> None:
    """The NTP time in it is the publisher's clock, which may be years off: only when it was passed on counts."""
    delivery = Delivery()
    delivery.sender_report(0x11112222, 10.0)
    delivery.sender_report(0x11122222, 11.0)
    delivery.reported(block(last_sr=0x11112222, delay_s=1.5), 90_000, sent(1), 11.58)
    assert delivery.round_trip_s == pytest.approx(0.08, abs=1e-4)
    delivery.reported(block(last_sr=0x11122222, delay_s=1.0), 90_000, sent(2), 12.16)
    assert delivery.round_trip_s == pytest.approx(0.112, abs=1e-4)


@pytest.mark.parametrize(
    ("last_sr", "delay_s"),
    [(0, 0.0), (6, 0.1), (5, 3.0), (5, 0.0)],
    ids=["no sender report yet", "one we did not send", "sooner than possible", "later than believable"],
)
def test_answers_that_tell_no_round_trip(last_sr: int, delay_s: float) -> None:
    delivery = Delivery()
    delivery.sender_report(5, 0.0)
    delivery.reported(
        block(last_sr=last_sr, delay_s=delay_s), 90_000, sent(1), 2.0 if delay_s else ROUND_TRIP_MAX_S + 1
    )
    assert delivery.round_trip_s is None


def test_sender_reports_are_remembered_for_a_while_only() -> None:
    delivery = Delivery()
    for i in range(1, SENDER_REPORTS + 2):
        delivery.sender_report(i, float(i))
    delivery.reported(block(last_sr=1), 90_000, sent(1), 9.5)
    assert delivery.round_trip_s is None
    delivery.reported(block(last_sr=2), 90_000, sent(2), 9.5)
    assert delivery.round_trip_s == 7.5


@given(
    st.lists(
        st.tuples(
            st.builds(ReportBlock, u32, st.integers(0, 255), st.integers(-0x800000, 0x7FFFFF), u32, u32, u32, u32),
            st.integers(0, 2000),
            st.integers(-50, 300),
            st.integers(0, 300),
            st.floats(0, 20),
            st.none() | u32,
        ),
        max_size=40,
    )
)
def test_no_report_makes_more_of_it_than_there_is(
    reports: list[tuple[ReportBlock, int, int, int, float, int | None]],
) -> None:
    delivery, packets, numbers, now_s = Delivery(), 0, 0, 100.0
    for said, more, gaps, resent, pause_s, last_sr in reports:
        packets, numbers, now_s = packets + more, numbers + more + gaps, now_s + pause_s
        delivery.resent += resent
        if last_sr is not None:
            delivery.sender_report(last_sr, now_s)
        delivery.reported(said, 48_000, Sent(packets, numbers, packets * 1000), now_s)
        assert delivery.expected <= packets + delivery.resent
        assert 0 <= delivery.lost <= delivery.expected
        assert delivery.loss is None or 0 <= delivery.loss <= 1
        assert 0 <= delivery.jitter_s <= JITTER_MAX_S
        assert delivery.round_trip_s is None or 0 <= delivery.round_trip_s <= ROUND_TRIP_MAX_S
        assert delivery.bitrate_bps >= 0
