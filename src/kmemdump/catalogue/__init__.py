# SPDX-License-Identifier: GPL-2.0-or-later
"""Many deaths as rows: which of them are one bug, since when, on which machines."""
