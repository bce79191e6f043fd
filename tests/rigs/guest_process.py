# SPDX-License-Identifier: GPL-2.0-or-later
"""
A process that has a guest's RAM, as a virtual machine monitor has it, and no guest.

The RAM is that of a synthetic kernel. Run as a program, it maps what it is told and
counts for ever in several threads.
"""

import json
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["GuestProcess", "Part"]

_COUNTERS = 4


@dataclass(frozen=True)
class Part:
    """RAM in a mapping of its own."""

    data: bytes
    shared: bool = False
    """Whether it is a memfd, else anonymous memory."""
    late: bool = False
    """Whether it is mapped when told to, not at the start."""
    hole: int = 0
    """Bytes at the end that the guest never touched; of a memfd, not allocated."""


class GuestProcess:
    """
    A process with some RAM.

    :param api: ``ch`` or ``firecracker``: whose API it has, at :attr:`socket`.
    :param state: What it writes as the state of a snapshot.
    """

    def __init__(
        self, folder: Path, *parts: Part, api: str = "", state: bytes = b""
    ) -> None:
        described = []
        for number, part in enumerate(parts):
            path = folder / f"part{number}"
            path.write_bytes(part.data)
            described.append([str(path), part.shared, part.late, part.hole])
        self.socket = folder / "api"
        (folder / "state").write_bytes(state)
        served = [api, str(self.socket), str(folder / "state")]
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(described), json.dumps(served)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask("")
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def ask(self, line: str) -> str:
        """Send a line (``map``, ``count``, ``blocks``); return the answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        if line:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        return process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class _Api(BaseHTTPRequestHandler):
    """
    The API of a monitor, as far as kmemdump uses it.

    By the definitions of Cloud Hypervisor and Firecracker; see
    ``src/kmemdump/targets/api_target.py`` for where these are.
    """

    kind = ""
    written = b""
    state = "Running"

    def do_GET(self) -> None:
        path = {"ch": "/api/v1/vm.info", "firecracker": "/"}[self.kind]
        if self.path != path:
            self._answer(404, ["Not Found"])
            return
        self._answer(200, {"id": "vm", "state": _Api.state})

    def do_PUT(self) -> None:
        body = self._take()
        routes: dict[str, Callable[[], None]] = {
            "/api/v1/vm.pause": lambda: self._become("Running", "Paused"),
            "/api/v1/vm.resume": lambda: self._become("Paused", "Running"),
            "/api/v1/vm.snapshot": lambda: self._snapshot_ch(body),
            "/api/v1/vmm.shutdown": lambda: os._exit(0),
        }
        if self.kind == "firecracker":
            routes = {"/snapshot/create": lambda: self._snapshot_firecracker(body)}
        if self.path in routes:
            routes[self.path]()
        else:
            self._answer(400, {"fault_message": "Invalid request"})

    def do_PATCH(self) -> None:
        states = {"Paused": ("Running", "Paused"), "Resumed": ("Paused", "Running")}
        wanted = str(self._take().get("state"))
        if self.kind == "firecracker" and self.path == "/vm" and wanted in states:
            self._become(*states[wanted])
        else:
            self._answer(400, {"fault_message": "Invalid request"})

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def address_string(self) -> str:
        return "a Unix socket"  # Which has no address.

    def _take(self) -> dict[str, object]:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = json.loads(data or b"{}")
        assert isinstance(found, dict)
        return found

    def _become(self, before: str, after: str) -> None:
        if _Api.state != before:
            self._answer(500, ["Error from API", f"{_Api.state} -> {after}"])
            return
        _Api.state = after
        self._answer(204)

    def _snapshot_ch(self, body: dict[str, object]) -> None:
        folder = Path(str(body["destination_url"]).removeprefix("file://"))
        try:
            if _Api.state != "Paused":
                raise OSError("VM must be paused")
            for name, data in (
                ("config.json", b"{}"),
                ("state.json", self.written),
                ("memory-ranges", bytes(1 << 20)),
            ):
                with open(folder / name, "xb") as file:
                    file.write(data)
        except OSError as error:
            self._answer(500, ["Error from API", str(error)])
        else:
            self._answer(204)

    def _snapshot_firecracker(self, body: dict[str, object]) -> None:
        try:
            if _Api.state != "Paused":
                raise OSError("VM must be paused")
            Path(str(body["snapshot_path"])).write_bytes(self.written)
            Path(str(body["mem_file_path"])).write_bytes(bytes(1 << 20))
        except OSError as error:
            self._answer(400, {"fault_message": str(error)})
        else:
            self._answer(204)

    def _answer(self, status: int, body: object = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)


def _serve(kind: str, path: str, state: str) -> None:
    _Api.kind = kind
    _Api.written = Path(state).read_bytes()
    server = _Server(path, _Api)  # type: ignore[arg-type]
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _main(parts: Sequence[tuple[str, bool, bool, int]], api: Sequence[str]) -> None:
    maps, files = [], []

    def take(*, late: bool) -> None:
        for path, shared, is_late, hole in parts:
            if is_late is not late:
                continue
            data = Path(path).read_bytes()
            size = len(data) + hole
            if shared:
                fd = os.memfd_create("guest-ram")
                os.ftruncate(fd, size)
                files.append(fd)
                memory = mmap.mmap(fd, size)
            else:
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
                memory = mmap.mmap(-1, size, flags=flags)
            memory[: len(data)] = data
            maps.append(memory)

    counts = [0] * _COUNTERS

    def count(number: int) -> None:
        while True:
            counts[number] += 1

    take(late=False)
    if api[0]:
        _serve(*api)
    for number in range(_COUNTERS):
        threading.Thread(target=count, args=(number,), daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        match line.strip():
            case "map":
                take(late=True)
                print("mapped", flush=True)
            case "count":
                print(*counts, flush=True)
            case "blocks":
                print(*(os.fstat(fd).st_blocks for fd in files), flush=True)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
