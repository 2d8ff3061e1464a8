# SPDX-License-Identifier: Apache-2.0
"""The steps from nothing to the tables of this release, oldest first: :mod:`v1_events_and_sessions`."""
