# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples in, verdict out."""

import pytest

from kmemdump.watch.hang_detector import CpuSample, HangDetector, Sample, Vcpu

AFTER = 10.0
PERIOD = 1.0

# Seconds 0, 1, 2, … of a CPU, in letters:
#   K  runs in the kernel, stands still          k  the same, and its counters move
#   U  runs in user space, stands still          u  the same, and its counters move
#   H  halted                                    ?  QEMU does not answer
#   P  idle task, not halted, always at one place (as by MWAIT)
#   I  idle task, not halted, at different places
#   w  shows no halting (aarch64), idle          a  the same, runs a task
#   .  was not online
STATES = {
    "K": (False, Vcpu(False, False, 0x10)),
    "U": (False, Vcpu(False, True, 0x20)),
    "H": (True, Vcpu(True, False, 0x30)),
    "P": (True, Vcpu(False, False, 0x30)),
    "I": (True, Vcpu(False, False, None)),
    "W": (True, Vcpu(None, False, 0x30)),
    "A": (False, Vcpu(None, False, 0x10)),
    "?": (False, None),
}


def verdicts(cpus, *, running="", jiffies="", ran=None, period=PERIOD):
    """Run the detector over the letters; return what it finds, with the second."""
    detector = HangDetector(AFTER, PERIOD)
    counters = [0] * len(cpus)
    clock = 0
    found = []
    for second in range(len(cpus[0])):
        samples = {}
        for cpu, letters in enumerate(cpus):
            letter = letters[second]
            if letter == ".":
                continue
            if letter.islower():
                counters[cpu] += 1
            idle, vcpu = STATES[letter.upper()]
            if vcpu is not None:
                pc = second if vcpu.pc is None else vcpu.pc
                spent = None if ran is None else ran * second
                vcpu = Vcpu(vcpu.halted, vcpu.user, pc, spent)
            samples[cpu] = CpuSample(bytes([counters[cpu] % 256]), idle, vcpu)
        if not jiffies or jiffies[second] == "j":
            clock += 250
        alive = not running or running[second] == "r"
        hang = detector.add(Sample(second * period, alive, clock, samples))
        if hang is not None:
            found.append((second, hang.cpus))
    return found


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        # Frozen: the only CPU, one of two, two of three, all.
        (["k" + "K" * 12], [(10, (0,))]),
        (["k" * 15, "kk" + "K" * 13], [(11, (1,))]),
        (["k" + "K" * 14, "k" * 15, "k" + "K" * 14], [(10, (0, 2))]),
        (["k" + "K" * 14, "kkk" + "K" * 12], [(10, (0,)), (12, (1,))]),
        (["H" * 15, "kk" + "K" * 13], [(11, (1,))]),
        # In an interrupt while it idled: never at the same place for long.
        (["k" + "I" * 14], [(10, (0,))]),
        (["a" + "A" * 14], [(10, (0,))]),
        # Reported once; again only after it moved.
        (["k" + "K" * 30], [(10, (0,))]),
        (["k" + "K" * 12 + "k" + "K" * 12], [(10, (0,)), (23, (0,))]),
        (["k" + "K" * 12 + "?HUK" + "K" * 14], [(10, (0,))]),
        # Healthy: idle without a tick, busy in the kernel or in user space.
        (["H" * 40, "H" * 40], []),
        (["P" * 40], []),
        (["W" * 40], []),
        (["k" * 40, "u" * 40], []),
        (["U" * 40, "k" * 40], []),  # Alone on a CPU of nohz_full=.
        # Never for long enough, or not certain.
        (["k" + "K" * 9 + "k" + "K" * 9], []),
        (["k" + "K" * 9 + "H" + "K" * 9], []),
        (["k" + "K" * 9 + "?" + "K" * 9], []),
        (["k" + "K" * 9 + "." + "K" * 9], []),
        (["?" * 40], []),
    ],
)
def test_cpus(cpus, expected):
    assert verdicts(cpus) == expected


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("p" * 30, []),  # Paused,
        ("r" * 9 + "p" * 9 + "r" * 9 + "ppp", []),  # continued and paused again,
        ("r" * 5 + "p" * 5 + "r" * 20, [(20, (0,))]),  # frozen after that.
    ],
)
def test_paused(running, expected):
    assert verdicts(["k" + "K" * 29], running=running) == expected


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        (None, [(10, (0,))]),
        (1.0, [(10, (0,))]),
        (0.5, [(10, (0,))]),
        (0.1, [(20, (0,))]),  # The host gave it little: it takes longer.
        (0.0, []),  # The host did not run it at all.
    ],
)
def test_overloaded_host(ran, expected):
    assert verdicts(["k" + "K" * 29], ran=ran) == expected


def test_we_stood_still_ourselves():
    # Samples a minute apart say nothing about the time between them.
    assert verdicts(["kKKKK"], period=60) == []
    assert verdicts(["kKKKKKKK"], period=60) == [(5, (0,))]


@pytest.mark.parametrize(
    ("cpus", "jiffies", "expected"),
    [
        # A task runs and switches, but the clock is dead.
        (["u" * 15], "j" + "-" * 14, [(10, ())]),
        (["k" * 15, "H" * 15], "jj" + "-" * 13, [(11, ())]),
        # All idle: no clock is needed.
        (["H" * 30, "H" * 30], "j" + "-" * 29, []),
        (["I" * 5 + "i" * 25], "j" + "-" * 29, []),
        # It is the frozen CPU's fault.
        (["k" + "K" * 29], "j" + "-" * 29, [(10, (0,))]),
    ],
)
def test_clock(cpus, jiffies, expected):
    assert verdicts(cpus, jiffies=jiffies) == expected


@pytest.mark.parametrize(
    ("letters", "period", "expected"),
    [
        # R runs with interrupts off; o the same, interrupts on; U in user space;
        # H halted; W at an instruction that waits; ? not known.
        ("R" * 45, 0.25, 40),
        ("R" * 45, 1.0, 20),  # Few samples prove nothing.
        ("R" * 39 + "o" + "R" * 39, 0.25, None),
        ("R" * 39 + "U" + "R" * 39, 0.25, None),
        ("R" * 39 + "?" + "R" * 39, 0.25, None),
        ("R" * 39 + "n" + "R" * 39, 0.25, None),
        ("H" * 90, 0.25, None),
        ("W" * 90, 0.25, None),
        ("o" * 90, 0.25, None),
        ("oUo" + "R" * 90, 0.25, 43),
    ],
)
def test_without_counters(letters, period, expected):
    states = {
        "R": Vcpu(False, False, 0x10, interrupts=False),
        "o": Vcpu(False, False, 0x10, interrupts=True),
        "U": Vcpu(False, True, 0x20, interrupts=True),
        "H": Vcpu(True, False, 0x30, interrupts=False),
        "W": Vcpu(None, False, 0x30, interrupts=False, waiting=True),
        "n": Vcpu(None, False, 0x30, interrupts=None),
        "?": None,
    }
    detector = HangDetector(AFTER, PERIOD)
    found = []
    for number, letter in enumerate(letters):
        other = CpuSample(None, False, states["o"])
        cpus = {0: other, 1: CpuSample(None, False, states[letter])}
        hang = detector.add(Sample(number * period, True, None, cpus))
        if hang is not None:
            found.append((number, str(hang)))
    seconds = round(max(AFTER, 20 * period))
    text = f"CPU 1 had interrupts off for {seconds} s"
    assert found == ([(expected, text)] if expected else [])


def test_hang_in_words():
    detector = HangDetector(5.0, 1.0)
    vcpu = Vcpu(False, False, 1)
    for second in range(7):
        cpus = {cpu: CpuSample(b"", False, vcpu) for cpu in (3, 1)}
        hang = detector.add(Sample(float(second), True, None, cpus))
        if hang is not None:
            break
    assert str(hang) == "CPUs 1, 3 served no interrupt for 5 s"
