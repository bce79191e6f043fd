# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the manual shows and is no shell session: each block is put to whom it is for.

Places are replaced by some in a folder of the test, nothing else is.
"""

import re
import shutil
import subprocess
import time
from contextlib import closing

import pytest

from kmemdump.cli import main
from kmemdump.firmware.discovery import ReservedRanges, find_live_reserved
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.targets.qmp import QmpTarget
from rigs.manual import DOCS, ROOT, read_block

_BLOCK = re.compile(r"( *)\.\. code-block:: (\w+)")


def block(page: str, language: str, word: str) -> str:
    """Return the one block of a language with a word in it."""
    lines = (DOCS / page).read_text().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        match = _BLOCK.fullmatch(line)
        if match and match[2] == language:
            text = "\n".join(read_block(lines[number:], len(match[1]), fenced=False))
            if word in text:
                found.append(text)
    (only,) = found
    return only


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs {program}; 'make test' installs it")
    return path


@pytest.mark.parametrize(
    ("page", "places"),
    [
        (
            "howto/device.rst",
            ReservedRanges(Range(0x86000000, 2 << 20), Range(0x86200000, 64 << 10)),
        ),
        (
            "howto/minidump.rst",
            ReservedRanges(Range(1, 2), Range(0x70200000, 64 << 10)),
        ),
    ],
)
def test_device_tree(page, places, tmp_path):
    text = block(page, "dts", "reserved-memory")
    source, blob = tmp_path / "a.dts", tmp_path / "a.dtb"
    cells = "#address-cells = <2>;\n#size-cells = <2>;\n"
    source.write_text(f"/dts-v1/;\n/ {{\n{cells}{text}\n}};\n")
    argv = [need("dtc"), "-q", "-I", "dts", "-O", "dtb", "-o", blob, source]
    subprocess.run(argv, check=True)
    # The one that shows scratch memory only is for a machine that has SMEM already.
    given = (
        ReservedRanges() if "qcom,smem" in text else ReservedRanges(smem=places.smem)
    )
    assert find_live_reserved(given, blob) == places


def test_qemu_command_line(tmp_path):
    """The VM is not started, and has no kernel; it is what kmemdump looks at."""
    text = block("howto/vm.rst", "sh", "qemu-system-x86_64")
    text = text.replace(" … ", " -display none -nodefaults -S ")
    text = text.replace("/run/vms/", f"{tmp_path}/").replace(
        "/dev/shm/web1", f"{tmp_path}/ram"
    )
    need("qemu-system-x86_64")
    socket = tmp_path / "web1.qmp"
    with subprocess.Popen(["sh", "-c", f"exec {text}"]) as qemu:
        try:
            deadline = time.monotonic() + 60
            while not socket.is_socket():
                assert qemu.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with closing(open_target(f"qmp:{socket}")) as target:
                assert isinstance(target, QmpTarget)
                # But for the VGA's window below 1 MiB.
                held = sum(item.size for item in target.memory.ranges)
                assert (4 << 30) - (1 << 20) < held <= 4 << 30
                # Not by way of QEMU's process.
                assert str(tmp_path / "ram") in target.memory.name
                devices = target.client.execute(
                    "qom-list", {"path": "/machine/peripheral-anon"}
                )
                assert {"child<vmcoreinfo>", "child<pvpanic-pci>"} <= {
                    device["type"] for device in devices
                }
        finally:
            qemu.kill()


def test_configuration(tmp_path, capsys):
    text = block("reference/kmemdump.rst", "toml", "[watch]")
    questions, path = tmp_path / "questions.py", tmp_path / "kmemdump.toml"
    shutil.copy(DOCS / "examples/devices.py", questions)
    text = text.replace("/etc/kmemdump/questions.py", str(questions))
    path.write_text(text.replace("/var/lib/kmemdump", str(tmp_path / "cores")))
    for verb in ("areas", "mark", "watch", "capture"):  # Each has options there.
        more = {
            "areas": [],
            "capture": ["x", "-o", "y"],
            "watch": ["x", "--until-dead"],
        }
        nowhere = more.get(verb, ["x"])
        status = main([verb, *nowhere, "--config", str(path)])
        out, err = capsys.readouterr()
        if verb == "areas":
            assert (status, err) == (0, "")
        else:  # All that is wrong is the target.
            assert status == 3
            assert "No such file" in out + err


def test_installing_a_service(tmp_path):
    """As far as it goes without systemd: what comes after the files is not run."""
    text = block("howto/device.rst", "sh", "sudo install")
    *install, last = text.splitlines()
    assert last == "sudo systemctl enable --now kmemdump"
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    script = (
        "\n".join(install).replace("sudo ", "").replace(" /etc/", f" {tmp_path}/etc/")
    )
    subprocess.run(["sh", "-ec", script], cwd=ROOT, check=True)
    unit = (tmp_path / "etc/systemd/system/kmemdump.service").read_text()
    assert "--config /etc/kmemdump/mark.toml" in unit
    assert (tmp_path / "etc/kmemdump/mark.toml").exists()
