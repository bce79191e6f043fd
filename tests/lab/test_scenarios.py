# SPDX-License-Identifier: GPL-2.0-or-later
"""Every scenario ends as it should: dead, paused, and with its memory readable."""

from rigs.scenarios import each_scenario


@each_scenario
def test_scenario(dead):
    machine, scenario = dead.machine, dead.scenario
    assert machine.control.status() == "paused"
    assert len(machine.control.execute("query-cpus-fast")) == scenario.cpus
    assert machine.ram.stat().st_size == scenario.memory << 20
    assert "GUEST-READY" in machine.console
