# SPDX-License-Identifier: GPL-2.0-or-later
# Everything works on a fresh Debian 12 machine as root, with nothing done before.
#
#   make demo     a kernel is marked, dies, and answers from its core image;
#                 make demo ARCH=aarch64 does it on an Arm machine,
#                 make demo BACKEND=minidump with the firmware of a phone, and
#                 make demo BACKEND=kdump with a crash kernel, as on a server
#   make test     all tests but the full matrix (boots machines, minutes)
#   make check    the tests that boot nothing (a minute)
#   make matrix   all tests, with every kernel, CPU count, memory size and death, and
#                 more examples of each property (hours)
#   make newest   the kernels that are Debian's newest today, as a table (an hour)
#   make soak     twenty VMs that die at random under one watch (half an hour)
#   make kills    workers, the watch, QEMU and libvirtd killed at random (half an hour)
#   make signatures 300 deaths by 29 bugs, grouped by signature (an hour; goes on where
#                 it ended)
#   make campaign every death and what is none, on four kernels under one watch (an hour)
#   make looks    looks that ask only for what changed, against full ones (an hour)
#   make lint     ruff and mypy
#   make fuzz     all parsers with millions of inputs, guided by coverage (an hour)
#   make fuzz-fast ten million inputs for each parser, not guided (hours)
#   make damaged damaged core images, ARGS=CORE…, through each verb (an hour)
#   make bench    kmemdump against what people use today
#   make docs     the manual, in build/docs, and the manual pages, in build/man
#   make share    manual pages and completions, in share, for a release
#   make release  sdist, wheel and Debian package, built and tested, in dist
#   make clean    remove all of the above
#
# ARGS adds arguments to pytest: make test ARGS='-k lab -x', make matrix
# ARGS='--kernel 5.10'. Kernels are kept in ~/.cache/kmemdump/lab, or where
# KMEMDUMP_LAB says.

PYTHON ?= python3
ARGS ?=
BACKEND ?= vm
ARCH ?= $(if $(filter minidump,$(BACKEND)),aarch64,x86_64)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Two processes more than CPUs, since many wait for a machine; each may have one of 4 GiB
# and a debugger. The order is conftest.py's.
PROCESSES := $(shell cpus=$$(nproc); echo $$((cpus < 2 ? cpus + 2 : 4)))
PARALLEL := -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder
# Tests start hundreds of processes, which would compile everything each time.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.PHONY: demo test check matrix newest soak kills campaign signatures looks lint fuzz fuzz-fast damaged bench docs share release clean system system-demo system-test system-matrix

demo: system-demo .venv/run
	$(BIN)/kmemdump demo -o build/demo --arch $(ARCH) --backend $(BACKEND)

test: system-test .venv/dev .venv/libvirt
	$(PYTEST) $(PARALLEL) -m 'not matrix' $(ARGS)

check: .venv/dev
	$(PYTEST) $(PARALLEL) -m 'not vm and not matrix and not slow' $(ARGS)

matrix: system-matrix .venv/dev .venv/docs .venv/libvirt
	$(PYTEST) $(PARALLEL) --hypothesis-profile=thorough \
		--results build/kernels.json $(ARGS)

newest: system-test .venv/dev
	PYTHONPATH=tests $(BIN)/python tests/newest.py $(PARALLEL) $(ARGS)

soak: system-test .venv/dev
	PYTHONPATH=tests $(BIN)/python tests/soak.py $(ARGS)

kills: system-test .venv/dev .venv/libvirt
	PYTHONPATH=tests $(BIN)/python tests/kills.py $(ARGS)

campaign: system-test .venv/dev
	PYTHONPATH=tests $(BIN)/python tests/campaign.py $(ARGS)

looks: system-test .venv/dev
	PYTHONPATH=tests $(BIN)/python tests/looks.py $(ARGS)

signatures: system-test .venv/dev
	PYTHONPATH=tests $(BIN)/python tests/signatures.py $(ARGS)

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fuzz: .venv/dev .venv/fuzz
	PYTHONPATH=tests $(BIN)/python tests/fuzz.py $(ARGS)

fuzz-fast: .venv/dev
	PYTHONPATH=tests $(BIN)/python tests/fuzz_fast.py $(ARGS)

damaged: .venv/dev
	PYTHONPATH=tests $(BIN)/python tests/damaged_cores.py $(ARGS)

bench: system-test .venv/dev
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(ARGS)

docs: .venv/docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	$(BIN)/sphinx-build -q -W --keep-going -t man -b man docs build/man

share: .venv/docs
	BIN=$(BIN) tools/share

release: .venv/dev .venv/docs
	ARGS='$(ARGS)' tools/release

clean:
	rm -rf .venv build dist share .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

system:
	@tools/bootstrap

system-demo:
	@tools/bootstrap demo $(filter kdump,$(BACKEND)) $(ARCH)

system-test:
	@tools/bootstrap test x86_64 aarch64

system-matrix:
	@tools/bootstrap test matrix x86_64 aarch64

# One stamp for each set of Python packages in the one virtual environment. Releases and
# hashes of their files are in requirements/, which tools/lock writes.
INSTALL = $(BIN)/pip install --quiet --require-hashes --no-build-isolation -r
INSTALL_OURS = $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .

.venv/python: | system
	$(PYTHON) -m venv .venv
	@touch $@

.venv/build: requirements/build.txt | .venv/python
	$(INSTALL) $<
	@touch $@

.venv/run .venv/dev .venv/fuzz .venv/docs: .venv/%: requirements/%.txt pyproject.toml | .venv/build
	$(INSTALL) $<
	$(INSTALL_OURS)
	@touch $@

# Built from source, with libvirt's headers.
.venv/libvirt: requirements/libvirt.txt pyproject.toml | .venv/build system-test
	$(INSTALL) $<
	$(INSTALL_OURS)
	@touch $@
