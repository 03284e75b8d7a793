"""Slots: who has to give way to whom, and that no address keeps another out. Counts hold whatever happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sfu.errors import ServerFull, TooManyConnections
from sfu.web.slots import Slot, Slots

PROXY = "192.0.2.1"


class Door:
    """Slots, and who had to give way, by name."""

    def __init__(self, n: int, share: int) -> None:
        self.slots = Slots(n, share, lambda address: address == PROXY)
        self.gone: list[str] = []

    def come(self, name: str, address: str) -> Slot:
        return self.slots.take(address, lambda: self.gone.append(name))


def test_one_address_has_its_share_and_no_more() -> None:
    door = Door(8, 2)
    for name in "ab":
        door.come(name, "127.0.0.2").asked("127.0.0.2")
    with pytest.raises(TooManyConnections):
        door.come("c", "127.0.0.2")
    door.come("d", "127.0.0.3")
    assert door.gone == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", False),
    ],
)
def test_what_one_address_is(one: str, other: str, same: bool) -> None:
    door = Door(8, 1)
    door.come("a", one).asked(one)
    if same:
        with pytest.raises(TooManyConnections):
            door.come("b", other)
    else:
        door.come("b", other)


def test_who_waits_for_the_first_request_gives_way_before_who_waits_for_the_next() -> None:
    door = Door(4, 4)
    slots = {name: door.come(name, f"127.0.0.{i}") for i, name in enumerate("abcd")}
    for name in "ab":
        slots[name].asked("127.0.0.1")
    slots["b"].answered()
    for i in range(3):
        door.come(f"new {i}", "127.0.0.9").asked("127.0.0.9")
    assert door.gone == ["c", "d", "b"]
    with pytest.raises(ServerFull):
        door.come("e", "127.0.0.8")  # a is being answered, and so are those that came
    slots["a"].answered()
    door.come("e", "127.0.0.8")
    assert door.gone[-1] == "a"


def test_an_address_gives_way_to_itself_alone() -> None:
    door = Door(8, 2)
    door.come("other", "127.0.0.3")
    for name in "abc":
        door.come(name, "127.0.0.2")
    assert door.gone == ["a"]


def test_a_proxy_is_not_bound_but_whom_it_stands_for_is() -> None:
    door = Door(8, 2)
    slots = [door.come(f"{i}", PROXY) for i in range(6)]
    for slot in slots[:2]:
        slot.asked("203.0.113.7")
    with pytest.raises(TooManyConnections):
        slots[2].asked("203.0.113.7")
    slots[3].asked("203.0.113.8")
    slots[0].answered()
    slots[4].asked("203.0.113.7")
    slots[5].asked(PROXY)  # said nothing of whom
    assert door.gone == []


class Crowd(RuleBasedStateMachine):
    """Whatever comes and goes, what is counted is what is there."""

    N, SHARE = 5, 3

    def __init__(self) -> None:
        super().__init__()
        self.here: list[Slot] = []
        self.slots = Slots(self.N, self.SHARE, lambda address: address == PROXY)

    def dismissed(self) -> Callable[[], None]:
        box: list[Slot] = []
        self.box = box
        return lambda: self.here.remove(box[0])

    @rule(address=st.sampled_from([PROXY, "a", "b"]))
    def come(self, address: str) -> None:
        try:
            slot = self.slots.take(address, self.dismissed())
        except (ServerFull, TooManyConnections):
            return
        self.box.append(slot)
        self.here.append(slot)

    @precondition(lambda self: self.here)
    @rule(data=st.data(), client=st.sampled_from([PROXY, "a", "b"]))
    def ask(self, data: st.DataObject, client: str) -> None:
        slot = data.draw(st.sampled_from(self.here))
        try:
            slot.asked(client if slot._connected == "" else slot._connected)
        except TooManyConnections:
            self.leave(slot)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.here)).answered()

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from(self.here)))

    def leave(self, slot: Slot) -> None:
        slot.give_back()
        slot.give_back()
        slot.answered()  # too late: nothing counts it again
        if slot in self.here:
            self.here.remove(slot)

    @invariant()
    def what_is_counted_is_there(self) -> None:
        assert len(self.here) == self.N - self.slots._free <= self.N
        assert self.slots._taken == Counter(slot.owner for slot in self.here)
        assert all(n <= self.SHARE for owner, n in self.slots._taken.items() if owner)
        waiting = [slot for slots in self.slots._waiting.values() for slot in slots]
        assert set(waiting) <= set(self.here)


TestCrowd = Crowd.TestCase
