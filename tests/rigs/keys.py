# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys of age and ssh, made by their own programs."""

import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["Key", "age_key", "ssh_key"]


class Key(NamedTuple):
    """A pair of keys."""

    public: str
    file: Path
    """Of the private one."""


def age_key(folder: Path, name: str = "age.key") -> Key:
    """Make a key with age-keygen."""
    file = folder / name
    subprocess.run(["age-keygen", "-o", file], check=True, capture_output=True)
    done = subprocess.run(
        ["age-keygen", "-y", file], check=True, capture_output=True, text=True
    )
    return Key(done.stdout.strip(), file)


def ssh_key(folder: Path, kind: str = "ed25519", passphrase: str = "") -> Key:
    """Make a key with ssh-keygen, whose public half has a comment."""
    file = folder / f"id_{kind}{'-locked' if passphrase else ''}"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "a b", "-f", file],
        check=True,
        capture_output=True,
    )
    return Key(file.with_name(f"{file.name}.pub").read_text().strip(), file)
