# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel logs that somebody saved: files, folders and streams, in any format."""
