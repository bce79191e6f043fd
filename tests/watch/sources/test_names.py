# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of VMs: unique, and the same whichever other VMs there are."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import UsageError
from kmemdump.watch.sources.names import Names, clean_name, name_vms, numbered


@pytest.mark.parametrize(
    ("sockets", "names"),
    [
        (["/run/a.sock"], ["a"]),
        (["qmp:/run/a.sock", "b"], ["a", "b"]),
        (["/vm/a/qmp", "/vm/b/qmp"], ["a-qmp", "b-qmp"]),
        (["/vm/a.x", "/vm/a.y"], ["vm-a-1", "vm-a-2"]),
    ],
)
def test_named_sockets(sockets, names):
    assert list(name_vms(sockets)) == names


def test_named_twice():
    with pytest.raises(UsageError, match="named twice"):
        name_vms(["x", "qmp:x"])


@given(st.text())
def test_a_name_is_part_of_a_file_name(text):
    name = clean_name(text)
    assert name
    assert "/" not in name
    assert not name.startswith((".", "-"))
    assert not any(c.isspace() for c in name)
    assert name.isprintable()


def test_each_vm_keeps_its_name():
    names = Names()
    assert names.name("x", lambda: numbered("vm")) == "vm"
    assert names.name("y", lambda: numbered("vm")) == "vm-2"
    assert names.name("x", lambda: numbered("other")) == "vm"
    assert names.name(Path("z"), lambda: numbered("vm")) == "vm-3"


def test_a_name_is_free_when_its_vm_is_gone():
    """A domain without a UUID of its own has another one each time."""
    names = Names()
    for uuid in range(100):
        names.forget_others([uuid, "other"])
        assert names.name("other", lambda: numbered("web")) == "web"
        assert names.name(uuid, lambda: numbered("web")) == "web-2"
    assert len(names._names) == 2
