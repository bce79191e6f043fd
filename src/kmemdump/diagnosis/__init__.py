# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a kernel died, out of its log, its CPUs' registers and its stacks."""
