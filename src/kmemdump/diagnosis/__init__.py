# SPDX-License-Identifier: GPL-2.0-or-later
"""Find out why a kernel died from its log, its CPUs' registers and its stacks."""
