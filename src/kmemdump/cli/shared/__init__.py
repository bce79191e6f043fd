# SPDX-License-Identifier: GPL-2.0-or-later
"""What several verbs share: options, output, and messages."""
