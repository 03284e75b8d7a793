"""Imports point one way: the folders have an order, no modules import each other in a circle, the planes stay apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
from support.process import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import house

SERVER, PAGE = house.python_modules(), house.page_modules()
NEVER = {True: {"trio", "quart", "databases", "hypercorn"}, False: {"aiortc", "aioice", "pylibsrtp"}}
"""Libraries of the other plane, by whether a module is of the media plane."""


@cache
def server_imports() -> dict[str, set[str]]:
    return {name: house.python_imports(path, SERVER) for name, path in SERVER.items()}


@cache
def page_imports() -> dict[str, set[str]]:
    return {name: house.page_imports(path) for name, path in PAGE.items()}


def test_a_module_imports_only_from_its_layer_and_below() -> None:
    for name, imports in server_imports().items():
        media = name.startswith("sfu.media")
        layers = house.MEDIA if media else house.CONTROL
        for other in (other for other in imports if other.partition(".")[0] == "sfu"):
            assert other in SERVER, f"{name} imports {other}, which is none of ours"
            assert other in house.SHARED or other.startswith("sfu.media") == media, (
                f"{name} imports the other plane's {other}"
            )
            assert house.floor_of(other, layers) <= house.floor_of(name, layers), (
                f"{name} imports {other}, which is above it"
            )
        foreign = {other.partition(".")[0] for other in imports} & NEVER[media]
        assert not foreign, f"{name} imports the other plane's {foreign}"


def test_a_module_of_the_page_imports_only_from_its_layer_and_below() -> None:
    for name, imports in page_imports().items():
        assert house.floor_of(name, house.PAGE) >= 0, f"docs/house.py has no layer for {name}"
        for other in imports:
            assert other in PAGE, f"{name} imports {other}, which is none of ours"
            assert house.floor_of(other, house.PAGE) <= house.floor_of(name, house.PAGE), f"{other} is above {name}"


def test_every_folder_has_a_layer() -> None:
    control = {name for name in SERVER if name.count(".") == 1 and name != "sfu.media"}
    media = {name for name in SERVER if name.count(".") == 2 and name.startswith("sfu.media.")}
    assert control == {name for layer in house.CONTROL for name in layer if name.count(".") == 1}
    assert media == {name for layer in house.MEDIA for name in layer if name.count(".") == 2}


@pytest.mark.parametrize("imports", [server_imports, page_imports])
def test_no_modules_import_each_other_in_a_circle(imports: Callable[[], dict[str, set[str]]]) -> None:
    found = imports()
    left = {name: others & found.keys() - {name} for name, others in found.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, circle(left)


def circle(left: dict[str, set[str]]) -> str:
    """One of the circles, in the order of its imports."""
    path = [min(left)]
    while path[-1] not in path[:-1]:
        path.append(min(left[path[-1]] & left.keys()))
    return ", ".join(f"{a} imports {b}" for a, b in pairwise(path[path.index(path[-1]) :]))


def test_the_picture_shows_the_code() -> None:
    assert house.PICTURE.read_text() == house.draw(), "run: python docs/house.py"
