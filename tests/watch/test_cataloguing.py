# SPDX-License-Identifier: GPL-2.0-or-later
"""Each death is added to a catalogue, beside the watch."""

import os
import time

import pytest

from kmemdump.catalogue.place import Place
from kmemdump.catalogue.store import Catalogue
from kmemdump.watch.cataloguing import CatalogueAdder
from kmemdump.watch.events import Event, EventName
from rigs.small_core import write

pytestmark = pytest.mark.slow

PATIENCE = 120


def died(vm: str, **more) -> Event:
    event = more.pop("event", EventName.DEATH)
    return Event(event=event, vm=vm, kind="panic", text="panic", **more)


def wait_for(found):
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def sources(place) -> list[str]:
    catalogue = Catalogue(Place(str(place)))
    if not catalogue.files():
        return []
    sql = "SELECT source FROM deaths ORDER BY 1"
    return [source for (source,) in catalogue.ask(lambda it: it.rows(sql))]


@pytest.fixture
def adder(tmp_path):
    found = CatalogueAdder(str(tmp_path / "place"), os.environ)
    yield found
    found.close(0)


def test_deaths_with_a_core_image_and_without(adder, tmp_path):
    core = write(tmp_path / "1.core")
    adder.take(died("web1", core=core))
    adder.take(died("web2", cause="panic: x", signature="panic: x"))
    adder.take(died("web3", event=EventName.MARKED))
    adder.close(PATIENCE)
    assert sources(tmp_path / "place") == [str(core), "watch of web2"]
    assert adder.failures() == []


def test_a_place_that_cannot_be_written_is_tried_again(adder, tmp_path):
    place = tmp_path / "place"
    place.write_text("in the way")
    start = time.monotonic()
    adder.take(died("web1", cause="x"))
    assert time.monotonic() - start < 1  # The watch goes on.
    (failure, *_) = wait_for(adder.failures)
    assert failure.vm == "web1"
    assert str(place) in failure.text
    place.unlink()
    wait_for(lambda: sources(place))
    assert sources(place) == ["watch of web1"]


def test_what_was_not_added_is_said_in_the_end(adder, tmp_path):
    (tmp_path / "place").write_text("in the way")
    adder.take(died("web1", cause="x"))
    wait_for(adder.failures)
    adder.close(PATIENCE)
    assert any("1 deaths were not added" in it.text for it in adder.failures())


def test_nothing_is_lost_if_the_watch_ends_while_a_death_is_added(adder, tmp_path):
    """A first process still waits for a source; the other deaths get another one."""
    slow = tmp_path / "slow.core"
    os.mkfifo(slow)
    adder.take(died("web1", core=slow))
    wait_for(lambda: adder._process)
    adder.take(died("web2", cause="x"))
    adder.close(0)
    wait_for(lambda: "watch of web2" in sources(tmp_path / "place"))
    assert any("adds the other deaths" in it.text for it in adder.failures())
    (process,) = adder._last
    assert process.wait(PATIENCE) == 0
