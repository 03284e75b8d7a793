from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfu.media.bandwidth.allocation import ENOUGH, LARGER, Layer, Wish, allocate

Q, H, F = LAYERS = (Layer("q", 180, 150e3), Layer("h", 360, 500e3), Layer("f", 720, 2500e3))

SCREEN = (Layer("q", 540, 250e3), Layer("h", 1080, 800e3), Layer("f", 1080, 2500e3))


def test_everything_fits_where_there_is_room() -> None:
    chosen, next_bps = allocate([Wish(720, LAYERS, "f"), Wish(180, LAYERS, "q")], 10e6)
    assert chosen == ["f", "q"]
    assert next_bps == 0


def test_a_tile_gets_no_more_than_it_shows() -> None:
    for height, rid in ((90, "q"), (300, "q"), (301, "h"), (600, "h"), (601, "f"), (2000, "f")):
        assert allocate([Wish(height, LAYERS)], 1e9).chosen == [rid], height


def test_of_layers_of_one_size_the_best_that_fits() -> None:
    for height, bps, rid in ((200, 9e6, "q"), (900, 9e6, "q"), (901, 9e6, "f"), (2160, 9e6, "f"), (1080, 1e6, "h")):
        assert allocate([Wish(height, SCREEN)], bps).chosen == [rid], height


def test_all_get_a_little_before_anyone_gets_more() -> None:
    wishes = [Wish(720, LAYERS, "q") for _ in range(4)]
    chosen, next_bps = allocate(wishes, 4 * 150e3 + 100e3)
    assert chosen == ["q"] * 4
    assert next_bps == 3 * 150e3 + 500e3 * LARGER


def test_the_most_important_grows_first() -> None:
    wishes = [Wish(720, LAYERS, "h"), Wish(720, LAYERS, "q"), Wish(720, LAYERS, "q")]
    assert allocate(wishes, 500e3 + 2 * 150e3).chosen == ["h", "q", "q"]


def test_the_last_ones_do_not_come_where_not_all_fit() -> None:
    chosen, next_bps = allocate([Wish(360, LAYERS, "q") for _ in range(5)], 480e3)
    assert chosen == ["q", "q", "q", None, None]
    assert next_bps == 4 * 150e3


def test_what_it_has_is_kept_with_less_than_what_it_takes_to_get_there() -> None:
    for bps in (500e3, 500e3 * LARGER - 1):
        assert allocate([Wish(720, LAYERS, "h")], bps).chosen == ["h"]
        assert allocate([Wish(720, LAYERS, "q")], bps).chosen == ["q"]
    assert allocate([Wish(720, LAYERS, "q")], 500e3 * LARGER).chosen == ["h"]


def test_a_layer_that_begins_counts_as_what_it_took_before() -> None:
    """An encoder takes seconds to fill it: to go up because it is small now is to come down again."""
    begun = (Q, Layer("h", 360, 90e3, most_bps=300e3))
    assert allocate([Wish(360, begun, "q")], 300e3).chosen == ["q"]
    assert allocate([Wish(360, begun, "q")], 300e3 * LARGER).chosen == ["h"]
    assert allocate([Wish(360, begun, "h")], 150e3).chosen == ["h"], "what it has counts as it is"


def test_a_video_without_layers_now_takes_nothing() -> None:
    assert allocate([Wish(720, ()), Wish(180, LAYERS, "q")], 150e3).chosen == [None, "q"]


wishes = st.lists(
    st.builds(
        Wish,
        st.integers(1, 2000),
        st.sampled_from(
            [(), LAYERS, LAYERS[:1], LAYERS[1:], SCREEN, (Q, Layer("h", 360, 90e3, 300e3)), (Layer("", 0, 800e3),)]
        ),
        st.sampled_from([None, "q", "h", "f", ""]),
    ),
    max_size=30,
)


@given(wishes, st.floats(0, 50e6))
def test_never_more_than_allowed_and_never_larger_than_shown(wanted: list[Wish], allowed_bps: float) -> None:
    chosen, next_bps = allocate(wanted, allowed_bps)
    spent = 0.0
    for wish, rid in zip(wanted, chosen, strict=True):
        if rid is None:
            continue
        at = [layer.rid for layer in wish.layers].index(rid)
        spent += wish.layers[at].bps
        smaller = [layer for layer in wish.layers if layer.height < wish.layers[at].height]
        assert all(layer.height < wish.height * ENOUGH for layer in smaller)
    assert spent <= allowed_bps * (1 + 1e-9)
    full = all(not w.layers or rid == w.layers[w.best()].rid for w, rid in zip(wanted, chosen, strict=True))
    assert (next_bps == 0) == full


@given(wishes, st.floats(0, 50e6))
def test_where_nothing_changes_it_comes_to_rest(wanted: list[Wish], allowed_bps: float) -> None:
    """Nothing flaps."""
    before: list[str | None] = []
    for _ in range(len(wanted) + 2):
        chosen = allocate(wanted, allowed_bps).chosen
        if chosen == before:
            return
        before = chosen
        wanted = [Wish(wish.height, wish.layers, rid) for wish, rid in zip(wanted, chosen, strict=True)]
    raise AssertionError(f"still changing: {before}")
