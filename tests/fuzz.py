# SPDX-License-Identifier: GPL-2.0-or-later
"""
Fuzz the parsers, guided by the code that they run: ``make fuzz``.

``python tests/fuzz.py [PARSER…] [libFuzzer options]`` fuzzes each parser in turn, in
a process of its own. Whatever is raised besides FormatError, takes more than 5 s or
more than 1 GiB ends it, and the input is left in ``build/fuzz``. What covered new code
is kept there, too, and is what the next run starts from. ``tests/tally.json`` says how
many inputs each parser has had.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kmemdump"]):
    from kmemdump.errors import FormatError
    from rigs.parsers import PARSERS, Parser
from rigs.tally import Count, add_count

FOLDER = Path(os.environ.get("KMEMDUMP_FUZZ", "build/fuzz"))
LIMITS = [
    *("-timeout=5", "-rss_limit_mb=1024", "-max_len=32768"),
    "-print_final_stats=1",
]
_CHILD = "KMEMDUMP_FUZZ_CHILD"
"""Set for the process that fuzzes, which libFuzzer ends."""
_STATISTICS = {
    "guided": re.compile(r"stat::number_of_executed_units: +(\d+)"),
    "memory": re.compile(r"stat::peak_rss_mb: +(\d+)"),
}


def target(parser: Parser, data: bytes) -> None:
    try:
        parser.run(data)
    except FormatError:
        return


def corpus_of(parser: Parser) -> Path:
    """Return a folder with inputs to start from."""
    corpus = FOLDER / parser.folder
    corpus.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(parser.seeds):
        (corpus / f"seed{i}").write_bytes(seed)
    return corpus


def fuzz(parser: Parser, options: list[str]) -> None:
    corpus = corpus_of(parser)
    arguments = [
        sys.argv[0],
        str(corpus),
        *LIMITS,
        f"-artifact_prefix={FOLDER}/{corpus.name}-",
        *options,
    ]
    atheris.Setup(arguments, lambda data: target(parser, data))
    atheris.Fuzz()


def fuzz_in_child(name: str, options: list[str]) -> int:
    """Fuzz a parser, and count its inputs; return the process's exit status."""
    count = Count()
    process = subprocess.Popen(
        [sys.executable, __file__, name, *options],
        env={**os.environ, _CHILD: "1"},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            for field, pattern in _STATISTICS.items():
                if found := pattern.match(line):
                    setattr(count, field, int(found[1]))
    count.failures = int(process.returncode != 0)
    add_count(name, count)
    return process.returncode


def main() -> int:
    names = {parser.name: parser for parser in PARSERS}
    chosen = [name for name in sys.argv[1:] if not name.startswith("-")]
    options = [option for option in sys.argv[1:] if option.startswith("-")]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        print(f"no parser {unknown[0]!r}; there are: {', '.join(names)}")
        return 2
    if _CHILD in os.environ:
        parser = names[chosen[0]]
        fuzz(parser, options or [f"-runs={parser.runs}"])  # Ends the process.
    for name in chosen or names:
        print(f"== {name}", flush=True)
        status = fuzz_in_child(name, options)
        if status:
            print(f"{name}: failed, the input is in {FOLDER}")
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
