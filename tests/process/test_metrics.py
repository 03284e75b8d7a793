from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.process.metrics import HELP, Counters, family

SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="(\\[\\"n]|[^"\\\n])*"(,[a-z]+="(\\[\\"n]|[^"\\\n])*")*\})? \S+\Z')


def test_counts_by_name_and_labels() -> None:
    counters = Counters()
    counters.add("sfu_connections_total")
    counters.add("sfu_connections_total", 2)
    counters.add("sfu_refused_total", code="room_full")
    counters.add("sfu_refused_total", value=0.5, code="bad_name")
    assert counters.get("sfu_connections_total") == 3
    assert counters.get("sfu_refused_total", code="room_full") == 1
    assert counters.get("sfu_refused_total", code="bad_name") == 0.5
    assert counters.get("sfu_refused_total") == 0
    assert counters.get("sfu_refused_total", code="no_such") == 0


def test_asking_makes_no_counter() -> None:
    counters = Counters()
    counters.get("sfu_connections_total")
    assert counters.render() == ""


def test_declared_metrics_are_there_before_the_first_event() -> None:
    counters = Counters()
    counters.add("sfu_connections_total", 2)
    counters.declare()
    text = counters.render()
    assert "\nsfu_connections_total 2\n" in text
    assert "\nsfu_worker_restarts_total 0\n" in text
    assert set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) == set(HELP)
    assert "sfu_refused_total{" not in text


def test_the_order_of_labels_does_not_matter() -> None:
    counters = Counters()
    counters.add("x_total", a="1", b="2")
    counters.add("x_total", b="2", a="1")
    assert counters.get("x_total", b="2", a="1") == 2


def test_renders_each_metric_once_with_help_and_type() -> None:
    counters = Counters()
    counters.add("sfu_refused_total", code="room_full")
    counters.add("sfu_connections_total", 12_000_000_000_000_000_000)
    counters.add("sfu_refused_total", 3, code="bad_name")
    counters.add("made_up_total")
    assert counters.render() == (
        "# HELP made_up_total made_up_total\n"
        "# TYPE made_up_total counter\n"
        "made_up_total 1\n"
        "# HELP sfu_connections_total TCP connections accepted.\n"
        "# TYPE sfu_connections_total counter\n"
        "sfu_connections_total 12000000000000000000\n"
        "# HELP sfu_refused_total Requests and joins refused, by error code.\n"
        "# TYPE sfu_refused_total counter\n"
        'sfu_refused_total{code="bad_name"} 3\n'
        'sfu_refused_total{code="room_full"} 1\n'
    )


def test_a_histogram_s_buckets_hold_those_below() -> None:
    counters = Counters()
    for value in (0.5, 1, 1.5, 7):
        counters.observe("size", value, (1.0, 2.5), way="up")
    counters.observe("size", 2, (1.0, 2.5), way="down")
    assert counters.render() == (
        "# HELP size size\n"
        "# TYPE size histogram\n"
        'size_bucket{way="down",le="1"} 0\n'
        'size_bucket{way="down",le="2.5"} 1\n'
        'size_bucket{way="down",le="+Inf"} 1\n'
        'size_sum{way="down"} 2\n'
        'size_count{way="down"} 1\n'
        'size_bucket{way="up",le="1"} 2\n'
        'size_bucket{way="up",le="2.5"} 3\n'
        'size_bucket{way="up",le="+Inf"} 4\n'
        'size_sum{way="up"} 10\n'
        'size_count{way="up"} 4\n'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2.0, "2"),
        (0.25, "0.25"),
        (-1, "-1"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert family("x", "gauge", "X.", [({}, value)]) == f"# HELP x X.\n# TYPE x gauge\nx {text}\n"


@given(st.text(), st.floats())
def test_no_label_breaks_the_format(label: str, value: float) -> None:
    head_help, head_type, sample, rest = family("x", "gauge", label, [({"a": label, "b": "c"}, value)]).split("\n")
    assert head_help.startswith("# HELP x ")
    assert head_type == "# TYPE x gauge"
    assert SAMPLE.match(sample)
    assert rest == ""
