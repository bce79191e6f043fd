# SPDX-License-Identifier: GPL-2.0-or-later
"""Sealed core images: age itself, and nothing but the key, opens them."""

import base64
import io
import os
import resource
import stat
import struct
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kmemdump.core import open_core
from kmemdump.coreimage import Death
from kmemdump.coreimage.folder import CoreFolder
from kmemdump.coreimage.retention import Limits
from kmemdump.errors import (
    FormatError,
    KmemdumpError,
    OutputError,
    TargetError,
    UsageError,
)
from kmemdump.files import OpenFile
from kmemdump.formats.sealed import CLEAR_LIMIT, find_sealed
from kmemdump.opening import open_target
from kmemdump.sealing import Seal, make_seal, read_sealed, unseal_into
from kmemdump.sealing.folder_key import FolderKey
from kmemdump.sealing.memory import is_in_memory
from kmemdump.sealing.unseal import path_of_unsealed
from kmemdump.targets.vmcore import core_of
from rigs.full_disk import fill, mounted_tmpfs, needs_root
from rigs.keys import Key, age_key, ssh_key
from rigs.small_core import BUILD_ID, TIME, write


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def key(keys: Path) -> Key:
    return age_key(keys)


@pytest.fixture(scope="module")
def sealed(keys: Path, key: Key) -> bytes:
    return write(keys / "core", seal=make_seal([key.public])).read_bytes()


@pytest.fixture
def core(tmp_path: Path, sealed: bytes) -> Path:
    path = tmp_path / "sealed.core"
    path.write_bytes(sealed)
    return path


def test_an_rsa_key_that_age_does_not_take():
    """RFC 4253, 6.6: each field after its length; a number has a zero before it."""
    fields = (b"ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 1024)
    blob = b"".join(struct.pack(">I", len(it)) + it for it in fields)
    with pytest.raises(UsageError, match="has too many bits, expected 4096 at most"):
        make_seal([f"ssh-rsa {base64.b64encode(blob).decode()}"])


def age_payload(path: Path) -> bytes:
    """Return what the manual tells to give to age: all but the first line."""
    return path.read_bytes().split(b"\n", 1)[1]


def opened_by_age(path: Path, identity: Path) -> bytes:
    done = subprocess.run(
        ["age", "-d", "-i", identity], input=age_payload(path), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# What is written


def test_age_opens_it(tmp_path, key):
    plain = write(tmp_path / "plain").read_bytes()
    core = write(tmp_path / "core", seal=make_seal([key.public]))
    assert opened_by_age(core, key.file) == plain
    assert BUILD_ID.encode() in plain
    assert BUILD_ID.encode() not in core.read_bytes()
    assert stat.S_IMODE(core.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["core", "plain"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_for_keys_of_ssh(tmp_path, key, kind):
    other = ssh_key(tmp_path, kind)
    core = write(tmp_path / "core", seal=make_seal([key.public, other.public]))
    plain = opened_by_age(core, other.file)
    assert plain == opened_by_age(core, key.file)
    for identity in (key.file, other.file):
        with open_core(core, identity=identity) as found:
            assert found.manifest is not None
            assert found.manifest.kernel.build_id == BUILD_ID
            assert found.verify() == []


def test_recipients_in_a_file(tmp_path, key):
    other = ssh_key(tmp_path)
    lines = tmp_path / "recipients"
    lines.write_text(f"# both of us\n\n{key.public}\n{other.public}\n")
    assert make_seal([str(lines), key.public]).recipients == (key.public, other.public)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age1nonsense", "'age1nonsense' is no key to seal for"),
        ("ssh-ed25519 AAAA", "'ssh-ed25519 AAAA' is no key to seal for"),
        ("ssh-dss AAAA", "'ssh-dss AAAA' is no key to seal for"),
        # An exponent of zero: the library panics.
        (
            "ssh-rsa AAAAB3NzaC1yc2EAAAABAAAAAAE=",
            "'ssh-rsa AAAAB3NzaC1yc2EAAAABAAAAAAE=' is no key to seal for",
        ),
        ("/nonexistent", "/nonexistent: No such file"),
        ("/", "/: Is a directory"),
        ("\0", "null"),
    ],
)
def test_no_recipient(text, words):
    with pytest.raises(UsageError, match=words):
        make_seal([text])


def test_a_secret_key_is_not_printed(tmp_path, key):
    with pytest.raises(
        UsageError, match="is a secret key, expected a public one"
    ) as it:
        make_seal([str(key.file)])
    assert "SECRET-KEY-1" not in str(it.value)


def test_nobody_to_seal_for():
    with pytest.raises(UsageError, match="no recipient"):
        make_seal([])


def test_what_is_said_without_a_key(tmp_path, key):
    size = write(tmp_path / "plain").stat().st_size
    death = Death("panic: a secret", "panic", "panic|a secret", "1", "web1")
    seal = make_seal([key.public])
    core = write(tmp_path / "core", death=death, seal=seal)
    head = core.read_bytes()[:CLEAR_LIMIT]
    found = find_sealed(head, "core")
    assert found is not None
    assert found.clear is not None
    assert found.clear.release == "6.1.0-test"
    assert found.clear.time == TIME
    assert abs(found.clear.size - size) < 100  # The texts of the death.
    assert found.clear.signature == ""
    assert b"secret" not in head
    assert b"web1" not in head
    seal = make_seal([key.public], show_cause=True)
    again = write(tmp_path / "core", death=death, seal=seal).read_bytes()[:CLEAR_LIMIT]
    shown = find_sealed(again, "core")
    assert shown is not None
    assert shown.clear is not None
    assert shown.clear.signature == "panic|a secret"


def test_full_disk(tmp_path, key):
    """The limit on a file's size gives what a full disk gives; nothing is left."""
    seal = make_seal([key.public])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*: File too large"):
            write(tmp_path / "core", seal=seal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_no_folder(tmp_path, key):
    with pytest.raises(OutputError, match="does not exist"):
        write(tmp_path / "none" / "core", seal=make_seal([key.public]))


# What is read


def test_wrong_key(tmp_path, core):
    with pytest.raises(FormatError, match="sealed for other keys than the given ones"):
        open_target(str(core), identity=age_key(tmp_path).file)


def test_no_key(core):
    with pytest.raises(UsageError, match="is sealed, and there is no key to open it"):
        open_target(str(core))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no keys"),
        (b"# only a comment\n", "no keys"),
        (b"AGE-SECRET-KEY-1NONSENSE\n", "cannot be used"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "cannot be used"),
        (b"age-encryption.org/v1\n-> scrypt a 18\n", "the key itself is sealed"),
        (b"\xff\xfe", "is no file of keys"),
        (b"a" * ((1 << 20) + 1), "expected keys"),
    ],
)
def test_no_identity(tmp_path, core, content, words):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=words) as raised:
        open_target(str(core), identity=file)
    assert "NONSENSE" not in str(raised.value)


def test_key_with_a_passphrase(tmp_path, core):
    locked = ssh_key(tmp_path, passphrase="abcdef")
    with pytest.raises(UsageError, match="without a passphrase"):
        open_target(str(core), identity=locked.file)


def test_another_programs_file(tmp_path, key):
    """What age sealed is opened like what kmemdump did."""
    plain = write(tmp_path / "plain")
    sealed = tmp_path / "plain.age"
    command = ["age", "-r", key.public, "-o", sealed, plain]
    subprocess.run(command, check=True)
    with open_core(sealed, identity=[key.file]) as core:
        assert core.verify() == []


def open_files() -> list[str]:
    folder = "/proc/self/fd"
    with os.scandir(folder) as entries:
        names = [entry.path for entry in entries]
    return [os.readlink(path) for path in names if os.path.lexists(path)]


def test_nothing_is_on_the_disk_while_it_is_open(tmp_path, core, key):
    before = sorted(tmp_path.rglob("*"))
    with open_target(str(core), identity=key.file) as target:
        assert target.memory.read(0x1000, 4096) == bytes([1]) * 4096
        assert sorted(tmp_path.rglob("*")) == before
        assert any("memfd:kmemdump-unsealed" in it for it in open_files())
    assert not any("kmemdump-unsealed" in it for it in open_files())


def test_a_debugger_that_resolves_its_path_finds_it(core, key):
    """drgn names it as the kernel does, which is no path."""
    with open_target(str(core), identity=key.file):
        (name,) = [it for it in open_files() if "kmemdump-unsealed" in it]
        path = path_of_unsealed(name)
        assert path is not None
        assert Path(path).read_bytes()[:4] == b"\x7fELF"
    assert path_of_unsealed(name) is None
    assert path_of_unsealed("/etc/passwd") is None


def test_it_cannot_be_written_to(core, key):
    with open_target(str(core), identity=key.file) as target:
        fd = core_of(target).memory._memories[0]._fd
        with pytest.raises(PermissionError):
            os.pwrite(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x", 0)


def test_truncated_anywhere(tmp_path, core, key, sealed):
    for size in [*range(0, 600, 7), *range(600, len(sealed), 1009), len(sealed) - 1]:
        core.write_bytes(sealed[:size])
        with pytest.raises((FormatError, TargetError)) as raised:
            open_target(str(core), identity=key.file).close()
        assert str(core) in str(raised.value)


def test_any_bit_flipped(core, key, sealed):
    """Each that changes something is noticed, and none is more than an error."""
    true = find_sealed(sealed[:CLEAR_LIMIT], "x")
    for at in [*range(500), *range(500, len(sealed), 613)]:
        damaged = bytearray(sealed)
        damaged[at] ^= 1 << at % 8
        core.write_bytes(damaged)
        with suppress(KmemdumpError), open_target(str(core), identity=key.file) as it:
            said = find_sealed(bytes(damaged[:CLEAR_LIMIT]), "x").clear
            assert core_of(it).problems or said == true.clear, at


def test_a_changed_line_is_noticed(core, key, sealed):
    line, rest = sealed.split(b"\n", 1)
    other = line.replace(b"6.1.0-test", b"5.9.9-test")
    assert other != line
    core.write_bytes(other + b"\n" + rest)
    with open_target(str(core), identity=key.file) as target:
        (problem,) = core_of(target).problems
        assert "release 5.9.9-test, but 6.1.0-test is sealed" in problem
    found = find_sealed(sealed[:CLEAR_LIMIT], "x").clear
    core.write_bytes(found._replace(size=1).pack() + rest)
    with pytest.raises(FormatError, match="1 bytes are sealed, there are"):
        open_target(str(core), identity=key.file)


def test_more_than_there_is_memory_for(core, key):
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with open(core, "ab") as file:
        file.truncate(1 << 34)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 33, hard))
    try:
        with pytest.raises(TargetError, match="'kmemdump unseal' writes it to a file"):
            open_target(str(core), identity=key.file)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_endless_header(core, key):
    core.write_bytes(b"age-encryption.org/v1\n" + b"-> X25519 a\n" * (1 << 20))
    with pytest.raises(FormatError, match="no end of age's header"):
        open_target(str(core), identity=key.file)


def test_many_recipients(core, key):
    """The library would need minutes of CPU time for them."""
    stanzas = b"-> x\n\n" * 20_000
    core.write_bytes(b"age-encryption.org/v1\n" + stanzas + b"--- " + b"A" * 43 + b"\n")
    with pytest.raises(FormatError, match="sealed for 20000 recipients") as caught:
        open_core(core, identity=key.file)
    assert caught.value.where == f"{core}+0x0"


def test_as_many_recipients_as_there_may_be(tmp_path, key):
    others = [f"age1{number}" for number in range(256)]
    with pytest.raises(UsageError, match="257 recipients, expected at most 256"):
        make_seal([*others, key.public])


def test_what_is_added_later_is_not_read(core, key, sealed):
    """Whoever can seal for a key can add to a file for ever."""
    with closing(OpenFile(core)) as file:
        found = read_sealed(file)
        assert found is not None
        with core.open("ab") as more:
            more.write(bytes(1 << 20))
        plain = io.BytesIO()
        unseal_into(plain, file, found, [key.file])
    assert found.clear is not None
    assert len(plain.getvalue()) == found.clear.size


def test_what_fails_while_it_is_written(core, key):
    class Full(io.BytesIO):
        def write(self, data):
            raise OutputError("the disk is full")

    file = OpenFile(core)
    with pytest.raises(OutputError, match="the disk is full"):
        unseal_into(Full(), file, read_sealed(file), [key.file])
    file.close()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyrage", None)
    with pytest.raises(Exception, match=r"pip install 'kmemdump\[seal\]'"):
        make_seal(["age1"])


# The folder's key


def test_tags(tmp_path):
    key = FolderKey(tmp_path)
    assert not key.known
    assert key.tag("web1") == "web1"
    assert key.tags("web1", "a", "") is None
    key.make()
    tags = key.tags("web1", "a", "")
    assert tags == FolderKey(tmp_path).tags("web1", "a", "")
    assert tags.machine not in ("web1", key.tag("a"))
    assert tags.id == ""
    assert stat.S_IMODE((tmp_path / ".kmemdump.key").stat().st_mode) == 0o600
    other = FolderKey(tmp_path / "..")
    other._path = tmp_path / "other"
    other.make()
    assert other.tag("web1") != tags.machine


def test_seal_has_no_secret(key):
    seal = make_seal([key.public])
    assert seal == Seal((key.public,))


def test_folders_in_memory(tmp_path):
    assert is_in_memory(Path("/dev/shm/to/be/made"))
    assert not is_in_memory(Path("/proc"))


@needs_root
def test_a_full_disk_leaves_no_text_in_the_clear(tmp_path):
    """Before there is a key, tags are those of the process."""
    with mounted_tmpfs(tmp_path, 1 << 20) as disk:
        ballast = fill(disk)
        folder = CoreFolder(disk, Limits())
        folder.make_key()
        assert folder.tag("a secret") != "a secret"
        assert folder.tags("web1", "a secret", "") is None
        ballast.unlink()
        folder.make_key()
        assert folder.tags("web1", "a secret", "") is not None
        assert folder.tag("a secret") == FolderKey(disk).tag("a secret")


def test_a_key_that_cannot_be_read_now_stays(tmp_path, monkeypatch):
    """As when the disk fails for a moment: core images with its tags are there."""
    key = FolderKey(tmp_path)
    key.make()
    before = (tmp_path / ".kmemdump.key").read_bytes()

    def read(path, limit):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("kmemdump.sealing.folder_key.read_own_file", read)
    other = FolderKey(tmp_path)
    other.make()
    assert (tmp_path / ".kmemdump.key").read_bytes() == before
    assert other.tags("web1", "a", "") is None
