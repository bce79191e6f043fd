# SPDX-License-Identifier: GPL-2.0-or-later
"""The version, without the slow search by importlib.metadata."""

VERSION = "0.1.0"
