# SPDX-License-Identifier: GPL-2.0-or-later
"""A server of debug files by build id, as elfutils' debuginfod is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

__all__ = ["server"]


@contextmanager
def server(
    debug_file: Path, size: int | None = None
) -> Iterator[tuple[str, list[str]]]:
    """
    Run one that has a file for each build, on the loopback.

    :param size: What it says of the file's size, if not the truth.
    :return: Its URL, and the paths that were asked for.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            length = debug_file.stat().st_size if size is None else size
            self.send_header("Content-Length", str(length))
            self.end_headers()
            with debug_file.open("rb") as file:
                shutil.copyfileobj(file, self.wfile)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = Thread(target=found.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_port}", asked
        finally:
            found.shutdown()
            thread.join()
