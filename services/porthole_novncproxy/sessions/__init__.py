# SPDX-License-Identifier: Apache-2.0
"""The open consoles of one process: ``registry`` opens their sessions, and ends them for a cause from outside.

``endpoint`` lists and ends them over RPC, for users and administrators. ``view_only`` says what of a client's RFB
stream reaches the VNC server. ``recheck`` asks the compute hosts whether the consoles are still valid; ``schedule``
says when. ``history`` reports each session to consoleauth; ``tally`` adds up their numbers for the metrics.
"""
