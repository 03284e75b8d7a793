from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.bandwidth.allocation import ENOUGH, KEPT, LARGER, Layer, Step, Wish, allocate

Q, H, F = LAYERS = (Layer("q", 180, 150e3), Layer("h", 360, 500e3), Layer("f", 720, 2500e3))

FINE = (Q, H._replace(bps=400e3), F._replace(bps=1700e3))
"""What the page sends of a camera. Its temporal layers have these shares."""
SHARES = (0.4, 0.6, 1.0)

SCREEN = (Layer("q", 540, 250e3), Layer("h", 1080, 800e3), Layer("f", 1080, 2500e3))


def whole(*rids: str | None) -> list[Step | None]:
    return [None if rid is None else Step(rid) for rid in rids]


def wish(height: int, layers: Sequence[Layer], now: str | None = None) -> Wish:
    return Wish(height, layers, None if now is None else Step(now))


def test_everything_fits_where_there_is_room() -> None:
    chosen, next_bps, _ = allocate([wish(720, LAYERS, "f"), wish(180, LAYERS, "q")], 10e6)
    assert chosen == whole("f", "q")
    assert next_bps == 0


def test_a_tile_gets_no_more_than_it_shows() -> None:
    for height, rid in ((90, "q"), (300, "q"), (301, "h"), (600, "h"), (601, "f"), (2000, "f")):
        assert allocate([wish(height, LAYERS)], 1e9).chosen == whole(rid), height


def test_of_layers_of_one_size_the_best_that_fits() -> None:
    for height, bps, rid in ((200, 9e6, "q"), (900, 9e6, "q"), (901, 9e6, "f"), (2160, 9e6, "f"), (1080, 1e6, "h")):
        assert allocate([wish(height, SCREEN)], bps).chosen == whole(rid), height


def test_all_get_a_little_before_anyone_gets_more() -> None:
    wishes = [wish(720, LAYERS, "q") for _ in range(4)]
    chosen, next_bps, _ = allocate(wishes, 4 * 150e3 + 100e3)
    assert chosen == whole(*["q"] * 4)
    assert next_bps == 3 * 150e3 + 500e3 * LARGER


def test_the_most_important_grows_first() -> None:
    wishes = [wish(720, LAYERS, "h"), wish(720, LAYERS, "q"), wish(720, LAYERS, "q")]
    assert allocate(wishes, 500e3 + 2 * 150e3).chosen == whole("h", "q", "q")


def test_the_last_ones_do_not_come_where_not_all_fit() -> None:
    chosen, next_bps, _ = allocate([wish(360, LAYERS, "q") for _ in range(5)], 480e3)
    assert chosen == whole("q", "q", "q", None, None)
    assert next_bps == 4 * 150e3


def test_what_it_has_is_kept_with_less_than_what_it_takes_to_get_there() -> None:
    for bps in (500e3, 500e3 * LARGER - 1):
        assert allocate([wish(720, LAYERS, "h")], bps).chosen == whole("h")
        assert allocate([wish(720, LAYERS, "q")], bps).chosen == whole("q")
    assert allocate([wish(720, LAYERS, "q")], 500e3 * LARGER).chosen == whole("h")


def test_a_layer_that_begins_counts_as_what_it_took_before() -> None:
    """An encoder takes seconds to fill it: to go up because it is small now is to come down again."""
    begun = (Q, Layer("h", 360, 90e3, most_bps=300e3))
    assert allocate([wish(360, begun, "q")], 300e3).chosen == whole("q")
    assert allocate([wish(360, begun, "q")], 300e3 * LARGER).chosen == whole("h")
    assert allocate([wish(360, begun, "h")], 150e3).chosen == whole("h"), "what it has counts as it is"


def test_a_video_without_layers_now_takes_nothing() -> None:
    assert allocate([wish(720, ()), wish(180, LAYERS, "q")], 150e3).chosen == whole(None, "q")


def fine(height: int, now: Step | None = None, *, speaks: bool = False) -> Wish:
    return Wish(height, FINE, now, speaks=speaks, shares=[SHARES] * 3)


def spent_bps(wished: Sequence[Wish], chosen: Sequence[Step | None]) -> float:
    total = 0.0
    for one, step in zip(wished, chosen, strict=True):
        for layer in one.layers:
            if step is not None and layer.rid == step.rid:
                total += layer.bps * (
                    1.0 if step.temporal is None else one.shares[one.layers.index(layer)][step.temporal]
                )
    return total


LADDER = [
    (60e3, Step("q", 0)),
    (90e3, Step("q", 1)),
    (150e3, Step("q")),
    (240e3, Step("h", 1)),
    (400e3, Step("h")),
    (1020e3, Step("f", 1)),
    (1700e3, Step("f")),
]


@pytest.mark.parametrize(("bps", "step"), LADDER)
def test_a_narrow_downlink_has_steps_between_the_layers(bps: float, step: Step) -> None:
    assert allocate([fine(720)], bps * LARGER).chosen == [step]
    assert allocate([fine(720, step)], bps / KEPT + 1).chosen == [step], "it is kept with less"
    assert allocate([fine(720, step)], bps / KEPT - 1).chosen != [step]
    assert allocate([fine(720)], bps * LARGER - 1).chosen != [step]


def test_below_the_smallest_step_there_is_no_picture() -> None:
    assert allocate([fine(720, Step("q", 0))], 58e3) == ([None], 60e3, True)
    assert allocate([fine(720)], 60e3 * LARGER - 1) == ([None], 60e3 * LARGER, False)


def test_a_downlink_that_is_not_narrow_has_the_layers_alone() -> None:
    assert [allocate([Wish(720, FINE)], bps * LARGER).chosen[0] for bps, _ in LADDER] == [
        None, None, Step("q"), Step("q"), Step("h"), Step("h"), Step("f"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "steps"),
    [
        ((1.0,), [Step("q"), Step("h")]),
        ((0.6, 1.0), [Step("q", 0), Step("q"), Step("h", 0), Step("h")]),
        ((0.2, 0.3, 0.6, 1.0), [Step("q", 0), Step("q", 1), Step("q", 2), Step("q"), Step("h", 2), Step("h")]),
    ],
)
def test_a_larger_layer_has_half_of_its_pictures_at_least(shares: tuple[float, ...], steps: list[Step]) -> None:
    one = Wish(720, FINE[:2], shares=[shares] * 2)
    found = [allocate([one], bps).chosen[0] for bps in range(0, 1_000_000, 1000)]
    assert list(dict.fromkeys(step for step in found if step is not None)) == steps


def test_the_most_important_moves_smoothly_before_others_come() -> None:
    """Six people on 800 kbit/s, most of it for sound: the speaker is whole, the others come one by one."""

    def six(bps: float) -> list[Step | None]:
        return allocate([fine(360) for _ in range(6)], bps * LARGER + 1).chosen

    assert six(150e3) == [Step("q"), *[None] * 5]
    assert six(270e3) == [Step("q"), Step("q", 0), Step("q", 0), *[None] * 3]
    assert six(450e3) == [Step("q"), *[Step("q", 0)] * 5]
    assert six(600e3) == [Step("q"), *[Step("q", 1)] * 5]


def test_a_grid_is_shared_fairly() -> None:
    for bps in range(200_000, 12_000_000, 100_000):
        steps = [step for _, step in LADDER]
        places = [-1 if step is None else steps.index(step) for step in allocate([fine(360)] * 25, bps).chosen]
        assert places == sorted(places, reverse=True), "in order of importance"
        assert places[1] - max(0, places[-1]) <= 1, "nobody gets two steps more than another"


def test_the_speaker_comes_before_those_who_are_shown_already() -> None:
    shown, paused = fine(90, Step("q", 0)), fine(90)
    screen = Wish(1080, SCREEN, Step("q"))
    wanted = [screen, paused, shown, fine(90, speaks=True)]
    assert allocate(wanted, 250e3 + 100e3).chosen == [Step("q"), None, None, Step("q", 0)]
    assert allocate(wanted, 250e3 + 130e3).chosen == [Step("q"), None, Step("q", 0), Step("q", 0)]


@pytest.mark.parametrize("bps", [200e3, 400e3, 700e3, 1.5e6])
def test_a_change_of_importance_alone_moves_nothing(bps: float) -> None:
    has: list[Step | None] = [None] * 8
    for _ in range(9):
        has = allocate([fine(360, step) for step in has], bps).chosen
    chance = random.Random(7)
    for _ in range(50):
        first, *rest = has
        chance.shuffle(rest)
        has = [first, *rest]
        assert allocate([fine(360, step) for step in has], bps).chosen == has


def test_what_the_present_steps_take_is_told() -> None:
    assert not allocate([fine(720, Step("h"))], 400e3 / KEPT + 1).over
    assert allocate([fine(720, Step("h"))], 400e3 / KEPT - 1).over
    assert not allocate([fine(720, None)], 1e3).over


def test_a_width_counts_where_it_is_known() -> None:
    """A picture of a phone held upright fills a tile that is wider than high."""
    upright = [Layer("q", 320, 150e3, width=180), Layer("h", 640, 400e3, width=360), Layer("f", 1280, 17e5, width=720)]
    for width, rid in ((300, "q"), (301, "h"), (600, "h"), (640, "f")):
        assert allocate([Wish(360, upright, width=width)], 1e9).chosen == whole(rid), width


def test_a_person_who_speaks_now_and_then_moves_little() -> None:
    """Ten people, of whom four fit, take turns in speaking."""
    chance = random.Random(1)
    order, has = list(range(10)), dict.fromkeys(range(10), None)
    changes = 0
    for _ in range(100):
        order.insert(0, order.pop(chance.randrange(10)))
        chosen = allocate([fine(360, has[one], speaks=not place) for place, one in enumerate(order)], 330e3).chosen
        now = dict(zip(order, chosen, strict=True))
        assert now[order[0]] == Step("q")
        changes += sum((now[one] is None) != (has[one] is None) for one in order)
        has = now
    assert changes <= 2 * 100 + 4, "the new speaker comes, and one goes"


layers = st.sampled_from(
    [(), LAYERS, LAYERS[:1], LAYERS[1:], FINE, SCREEN, (Q, Layer("h", 360, 90e3, 300e3)), (Layer("", 0, 800e3),)]
)
steps = st.builds(Step, st.sampled_from(["q", "h", "f", ""]), st.sampled_from([None, 0, 1, 2]))
shares = st.sampled_from([(), [(1.0,)] * 3, [(0.6, 1.0)] * 3, [(0.4, 0.6, 1.0), (0.5, 0.7, 1.0), (0.3, 0.5, 1.0)]])
wishes = st.lists(
    st.builds(Wish, st.integers(1, 2000), layers, st.none() | steps, st.sampled_from([0, 300]), st.booleans(), shares),
    max_size=30,
)


@given(wishes, st.floats(0, 50e6))
def test_never_more_than_allowed_and_never_larger_than_shown(wanted: list[Wish], allowed_bps: float) -> None:
    chosen, next_bps, _ = allocate(wanted, allowed_bps)
    assert spent_bps(wanted, chosen) <= allowed_bps * KEPT * (1 + 1e-9)
    for one, step in zip(wanted, chosen, strict=True):
        if step is not None:
            at = [layer.rid for layer in one.layers].index(step.rid)
            smaller = [layer for layer in one.layers if layer.height < one.layers[at].height]
            assert all(layer.height < one.height * ENOUGH for layer in smaller)
            assert one.shares or step.temporal is None
    full = all(not w.layers or step == Step(w.layers[w.best()].rid) for w, step in zip(wanted, chosen, strict=True))
    assert (next_bps == 0) == full


@given(wishes, st.floats(0, 50e6))
def test_the_next_step_comes_with_the_bitrate_that_is_told(wanted: list[Wish], allowed_bps: float) -> None:
    chosen, next_bps, _ = allocate(wanted, allowed_bps)
    if next_bps:
        assert next_bps > allowed_bps
        assert allocate(wanted, next_bps).chosen != chosen


@given(wishes, st.floats(0, 50e6))
def test_where_nothing_changes_it_comes_to_rest(wanted: list[Wish], allowed_bps: float) -> None:
    """Nothing flaps."""
    before: list[Step | None] = []
    for _ in range(len(wanted) + 2):
        chosen = allocate(wanted, allowed_bps).chosen
        if chosen == before:
            return
        before = chosen
        wanted = [one._replace(now=step) for one, step in zip(wanted, chosen, strict=True)]
    raise AssertionError(f"still changing: {before}")
