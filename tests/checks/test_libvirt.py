# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of domains of a real libvirtd."""

import pytest

pytest.importorskip("libvirt", reason="installed by 'make test'")

import json

from rigs.libvirtd import Domain, Libvirtd, wait_for
from rigs.programs import run_kmemdump

pytestmark = [pytest.mark.vm, pytest.mark.matrix]


def test_a_domain(make_setup, tmp_path, lab_cache):
    """Found among all, and by its name; nothing in its XML helps."""
    with Libvirtd(tmp_path / "v", lab_cache) as daemon:
        setup = make_setup("6.1", memory=512, tasks=20, vmcoreinfo=False)
        domain = Domain(daemon, "web1", setup)
        domain.start()
        arguments = ("check", "--json", f"--libvirt={daemon.uri}", "--name", "web*")
        done = run_kmemdump(*arguments, "-o", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        (target,) = json.loads(done.stdout)["targets"]
        assert target["target"] == f"libvirt:{daemon.uri}#web1"
        points = {point["name"]: point for point in target["points"]}
        bad = {name for name, point in points.items() if point["state"] != "ok"}
        assert bad == {"actions", "memory", "pvpanic", "vmcoreinfo"}
        assert "<panic model='isa'/>" in points["pvpanic"]["advice"]
        assert target["core"]["size"] > 1e6
        wait_for(lambda: domain.state == "running")
