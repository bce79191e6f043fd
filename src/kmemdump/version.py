# SPDX-License-Identifier: GPL-2.0-or-later
"""The version, for those that cannot wait for importlib.metadata to find it."""

VERSION = "0.1.0"
