# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the copier writes: names that are taken, mounts, and files of settings."""

import ctypes
import errno
import os
import platform
import struct
import subprocess
from pathlib import Path

import pytest

from kmemdump.collect.source import Options, open_source
from kmemdump.crash_kernel.settings import SETTINGS, find_copy
from rigs.copier import assert_whole, dump, run_copier

NAME = "kmemdump-1700000000"


def written(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def refuse_flags(error: int) -> None:
    """
    Let renameat2() with flags fail in this process, as some file systems do.

    A filter of seccomp(2): Linux include/uapi/linux/seccomp.h and bpf_common.h.
    """
    number = {"x86_64": 316, "aarch64": 276}[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD+W+ABS, BPF_JMP+JEQ+K, BPF_RET+K
    program = b"".join(
        struct.pack("<HBBI", *it)
        for it in (
            (load, 0, 0, 0),  # struct seccomp_data: nr
            (equal, 0, 3, number),
            (load, 0, 0, 16 + 4 * 8),  # args[4]
            (equal, 1, 0, 0),
            (give, 0, 0, 0x00050000 | error),  # SECCOMP_RET_ERRNO
            (give, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        )
    )
    code = ctypes.create_string_buffer(program)
    fprog = struct.pack("<HxxxxxxQ", 6, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    assert not libc.prctl(22, 2, fprog, 0, 0), ctypes.get_errno()  # PR_SET_SECCOMP


@pytest.mark.parametrize("error", [0, errno.EINVAL, errno.ENOSYS])
def test_replaces_no_earlier_death_of_the_same_time(copier, ram, tmp_path, error):
    """A board without a clock starts each boot at one time."""
    vmcore, out = dump(ram, tmp_path / "vmcore"), tmp_path / "var/crash"
    found, files = [], []
    for i in range(3):
        ram.data[-1] = i
        done = subprocess.run(
            [copier, f"vmcore={dump(ram, vmcore)}", f"to=file:{out}"],
            capture_output=True,
            text=True,
            preexec_fn=(lambda: refuse_flags(error)) if error else None,
        )
        assert done.returncode == 0, done
        found.append(done.stderr.partition(": ")[2].partition(": ")[0])
        files.append(Path(found[-1]).stat().st_ino)
    assert found == [f"{out}/{NAME}{it}.elf" for it in ("", "-1", "-2")]
    assert written(out) == sorted(map(os.path.basename, found))
    assert files == [os.stat(name).st_ino for name in found]
    for name in found:
        assert_whole(Path(name).read_bytes())
    # The next boot takes the last one.
    settings = tmp_path / SETTINGS
    settings.parent.mkdir(parents=True)
    settings.write_text("to=file:/var/crash\n")
    assert find_copy(tmp_path) == Path(found[-1])


def test_says_if_all_names_are_taken(copier, ram, tmp_path):
    vmcore, out, more = dump(ram, tmp_path / "vmcore"), tmp_path / "a", tmp_path / "b"
    out.mkdir()
    for name in (NAME, *(f"{NAME}-{i}" for i in range(1, 1000))):
        # Also a link to nowhere is a name.
        (out / f"{name}.elf").symlink_to("/nowhere")
    done = run_copier(copier, f"vmcore={vmcore}", f"to=file:{out}", f"to=file:{more}")
    assert f"{NAME}-999.elf: there are 1000 of this time already" in done.stderr
    assert (done.returncode, written(more)) == (0, [f"{NAME}.elf"])
    assert len(written(out)) == 1000


def in_namespace(script: str, *arguments: object) -> str:
    """Run a script where /mnt is its own."""
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*argv, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no namespaces: {done.stderr}")
    return done.stdout + done.stderr


@pytest.mark.parametrize("place", ["file:/mnt/x", "as:/mnt/last"])
def test_unmounts_nothing_of_others(copier, ram, tmp_path, place):
    """kdump-utils mounts its disk, and may do it there."""
    vmcore = dump(ram, tmp_path / "vmcore")
    script = 'mount -t tmpfs none /mnt && "$1" "vmcore=$2" "to=$3"; find /mnt -type f'
    said = in_namespace(script, copier, vmcore, place).splitlines()
    assert len(said) == 2, said
    assert said[0] == ("/mnt/last" if "as:" in place else f"/mnt/x/{NAME}.elf")


def test_unmounts_what_it_mounted(copier, ram, tmp_path):
    """Also if it can write nothing there: devpts has no folders."""
    vmcore = dump(ram, tmp_path / "vmcore")
    script = '"$1" "vmcore=$2" "to=$3" "to=$4"; grep " /mnt " /proc/self/mounts'
    places = "file:/x@devpts:/dev/null", "file:/y@tmpfs:/dev/null"
    said = in_namespace(script, copier, vmcore, *places)
    first, second = said.splitlines()
    assert first == "kmemdump: not written: /mnt/x: not allowed"
    assert f"/mnt/y/{NAME}.elf: " in second


def test_each_file_of_settings_counts(copier, ram, tmp_path):
    vmcore, first, second = (
        dump(ram, tmp_path / "vmcore"),
        tmp_path / "1",
        tmp_path / "2",
    )
    first.write_text(f"to=as:{tmp_path}/first then=return # as is the default\n")
    second.write_text(f"timeout=50\nto=as:{tmp_path}/second\n")
    configs = f"config={first}", f"config={second}"
    done = run_copier(copier, f"vmcore={vmcore}", *configs)
    assert done.returncode == 0, done
    assert written(tmp_path) == ["1", "2", "first", "vmcore"]
    with open_source(str(tmp_path / "first"), Options()) as source:
        assert len(source.dump.regions) == 3
