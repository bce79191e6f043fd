# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples in, verdict out."""

from dataclasses import replace

import pytest

from kmemdump.watch.hang_detector import CpuSample, HangDetector, Sample, Vcpu

AFTER = 10.0
PERIOD = 1.0

# Seconds 0, 1, 2, … of a CPU, in letters:
#   K  runs in the kernel, stands still          k  the same, and its counters move
#   U  runs in user space, stands still          u  the same, and its counters move
#   H  halted                                    ?  QEMU does not answer
#   P  idle task, not halted, at an instruction that waits (MWAIT)
#   I  idle task, not halted, elsewhere: in an interrupt, or one jumps to itself
#   Z  halted with interrupts off                Y  the same, idle task
#   w  shows no halting (aarch64), waits         v  the same, idle task, in an interrupt
#   a  the same, runs a task
#   .  was not online
STATES = {
    "K": (False, Vcpu(False, False, 0x10)),
    "U": (False, Vcpu(False, True, 0x20)),
    "H": (True, Vcpu(True, False, 0x30)),
    "P": (True, Vcpu(False, False, 0x30, waiting=True)),
    "I": (True, Vcpu(False, False, 0x38)),
    "Z": (False, Vcpu(True, False, 0x30, interrupts=False)),
    "Y": (True, Vcpu(True, False, 0x30, interrupts=False)),
    "W": (True, Vcpu(None, False, 0x30, waiting=True)),
    "V": (True, Vcpu(None, False, 0x38)),
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
                spent = None if ran is None else ran * second
                vcpu = replace(vcpu, cpu_time=spent)
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
        # In an interrupt while it idled.
        (["k" + "I" * 14], [(10, (0,))]),
        (["k" + "V" * 14], [(10, (0,))]),
        (["k" + "P" * 5 + "I" * 14], [(16, (0,))]),
        # Nothing wakes a CPU that is halted with interrupts off.
        (["k" + "Z" * 14, "k" * 15], [(10, (0,))]),
        (["k" + "Y" * 14, "H" * 15], [(10, (0,))]),
        (["k" + "KZYI" * 4, "k" * 17], [(10, (0,))]),
        (["k" + "Z" * 9 + "H" + "Z" * 9], []),
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
    # One that is halted takes no time.
    assert verdicts(["k" + "Z" * 29], ran=ran) == [(10, (0,))]
    if ran == 0:
        assert verdicts(["k" + "ZK" * 14], ran=ran) == []


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
        ("Z" * 90, 0.25, None),  # It may be offline.
    ],
)
def test_without_counters(letters, period, expected):
    states = {
        "R": Vcpu(False, False, 0x10, interrupts=False),
        "o": Vcpu(False, False, 0x10, interrupts=True),
        "U": Vcpu(False, True, 0x20, interrupts=True),
        "H": Vcpu(True, False, 0x30, interrupts=True),
        "Z": Vcpu(True, False, 0x30, interrupts=False),
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


def test_all_halted_without_counters():
    detector = HangDetector(AFTER, PERIOD)
    vcpu = Vcpu(True, False, 0x30, 0.0, interrupts=False)
    cpus = {cpu: CpuSample(None, False, vcpu) for cpu in range(2)}
    samples = [Sample(0.25 * number, True, None, cpus) for number in range(60)]
    found = [str(hang) for hang in map(detector.add, samples) if hang is not None]
    assert found == ["CPUs 0, 1 stood halted with interrupts off for 10 s"]


def test_hang_in_words():
    detector = HangDetector(5.0, 1.0)
    vcpu = Vcpu(False, False, 1)
    for second in range(7):
        cpus = {cpu: CpuSample(b"", False, vcpu) for cpu in (3, 1)}
        hang = detector.add(Sample(float(second), True, None, cpus))
        if hang is not None:
            break
    assert str(hang) == "CPUs 1, 3 served no interrupt for 5 s"
