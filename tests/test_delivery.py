"""What report blocks tell of a track's way to a subscriber."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.delivery import JITTER_MAX_S, ROUND_TRIP_MAX_S, SENDER_REPORTS, Delivery
from sfu.media.rtp import ReportBlock

u32 = st.integers(0, 0xFFFFFFFF)


def block(*, fraction: int = 0, jitter: int = 0, last_sr: int = 0, delay_s: float = 0.0) -> ReportBlock:
    return ReportBlock(1, fraction, 0, 0, jitter, last_sr, int(delay_s * 65536))


def test_nothing_is_known_before_the_first_report() -> None:
    delivery = Delivery()
    assert (delivery.loss, delivery.round_trip_s, delivery.expected) == (None, None, 0)


def test_loss_is_of_what_was_sent_since_the_last_report() -> None:
    delivery = Delivery()
    delivery.reported(block(fraction=64), 90_000, 100, 0, 1.0)
    assert (delivery.loss, delivery.expected, delivery.lost) == (0.25, 100, 25)
    delivery.reported(block(), 90_000, 400, 0, 2.0)
    assert (delivery.expected, delivery.lost) == (400, 25)
    assert delivery.loss == pytest.approx(0.175)


def test_a_report_while_nothing_is_sent_says_nothing_of_loss() -> None:
    delivery = Delivery()
    delivery.reported(block(fraction=128), 90_000, 100, 0, 1.0)
    delivery.reported(block(fraction=255), 90_000, 100, 0, 2.0)
    assert (delivery.loss, delivery.expected, delivery.lost) == (0.5, 100, 50)


def test_what_was_sent_again_was_lost_though_the_receiver_has_it() -> None:
    delivery = Delivery()
    delivery.resent = 25
    delivery.reported(block(fraction=2), 90_000, 75, 0, 1.0)
    assert delivery.loss == 0.25
    delivery.reported(block(fraction=2), 90_000, 150, 0, 2.0)
    assert delivery.lost == pytest.approx(75 * 0.25 + 75 * 2 / 256)


def test_the_bitrate_is_that_between_two_reports() -> None:
    delivery = Delivery()
    delivery.reported(block(), 90_000, 100, 100_000, 10.0)
    assert delivery.bitrate_bps == 0
    delivery.reported(block(), 90_000, 200, 350_000, 12.0)
    assert delivery.bitrate_bps == 1_000_000


def test_jitter_is_in_the_clock_of_the_media() -> None:
    delivery = Delivery()
    delivery.reported(block(jitter=480), 48_000, 1, 0, 1.0)
    assert delivery.jitter_s == pytest.approx(0.01)
    delivery.reported(block(jitter=0xFFFFFFFF), 48_000, 1, 0, 2.0)
    assert delivery.jitter_s == JITTER_MAX_S


def test_the_round_trip_is_from_passing_a_sender_report_on_to_its_answer() -> None:
    """The NTP time in it is the publisher's clock, which may be years off: only when it was passed on counts."""
    delivery = Delivery()
    delivery.sender_report(0x11112222, 10.0)
    delivery.sender_report(0x11122222, 11.0)
    delivery.reported(block(last_sr=0x11112222, delay_s=1.5), 90_000, 1, 0, 11.58)
    assert delivery.round_trip_s == pytest.approx(0.08, abs=1e-4)
    delivery.reported(block(last_sr=0x11122222, delay_s=1.0), 90_000, 2, 0, 12.16)
    assert delivery.round_trip_s == pytest.approx(0.10, abs=1e-4)


@pytest.mark.parametrize(
    ("last_sr", "delay_s"),
    [(0, 0.0), (6, 0.1), (5, 3.0), (5, 0.0)],
    ids=["no sender report yet", "one we did not send", "sooner than possible", "later than believable"],
)
def test_answers_that_tell_no_round_trip(last_sr: int, delay_s: float) -> None:
    delivery = Delivery()
    delivery.sender_report(5, 0.0)
    delivery.reported(block(last_sr=last_sr, delay_s=delay_s), 90_000, 1, 0, 2.0 if delay_s else ROUND_TRIP_MAX_S + 1)
    assert delivery.round_trip_s is None


def test_sender_reports_are_remembered_for_a_while_only() -> None:
    delivery = Delivery()
    for i in range(1, SENDER_REPORTS + 2):
        delivery.sender_report(i, float(i))
    delivery.reported(block(last_sr=1), 90_000, 1, 0, 9.5)
    assert delivery.round_trip_s is None
    delivery.reported(block(last_sr=2), 90_000, 2, 0, 9.5)
    assert delivery.round_trip_s == 7.5


@given(
    st.lists(
        st.tuples(
            st.builds(ReportBlock, u32, st.integers(0, 255), st.integers(-0x800000, 0x7FFFFF), u32, u32, u32, u32),
            st.integers(0, 2000),
            st.integers(0, 300),
            st.floats(0, 20),
            st.none() | u32,
        ),
        max_size=40,
    )
)
def test_no_report_makes_more_of_it_than_there_is(
    reports: list[tuple[ReportBlock, int, int, float, int | None]],
) -> None:
    delivery, packets, now_s = Delivery(), 0, 100.0
    for said, sent, resent, pause_s, last_sr in reports:
        packets, now_s = packets + sent, now_s + pause_s
        delivery.resent += resent
        if last_sr is not None:
            delivery.sender_report(last_sr, now_s)
        delivery.reported(said, 48_000, packets, packets * 1000, now_s)
        assert delivery.expected == packets
        assert 0 <= delivery.lost <= delivery.expected
        assert delivery.loss is None or 0 <= delivery.loss <= 1
        assert 0 <= delivery.jitter_s <= JITTER_MAX_S
        assert delivery.round_trip_s is None or 0 <= delivery.round_trip_s <= ROUND_TRIP_MAX_S
        assert delivery.bitrate_bps >= 0
