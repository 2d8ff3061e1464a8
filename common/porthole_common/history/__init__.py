# SPDX-License-Identifier: Apache-2.0
"""The history of consoles, on the side of those who report: what an event is, and how it gets to the database.

* :mod:`event`: one event, as it is sent and stored. Pure.
* :mod:`spool`: the events that are not delivered yet, in memory and in a file.
* :mod:`reporter`: the thread that spools and delivers them. The proxy's delivers to consoleauth, consoleauth's to its
  database.

History never stands in the way of a console: :meth:`reporter.Reporter.report` puts an event into a list and returns.
"""
