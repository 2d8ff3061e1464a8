# SPDX-License-Identifier: Apache-2.0
"""``porthole doctor``: what is wrong, and how to mend it.

Why: an operator on call wants one command that looks at everything between a user's browser and a screen, names
what is broken, and says what to type. The parts, in the order of an examination:

* :mod:`command` is cliff's command; it alone is imported by the ``porthole`` program, the rest when it runs.
* :mod:`choice` decides what is examined: this host's daemons, or a ``porthole standalone``.
* :mod:`examination` goes through the stages under one deadline, and knows what rests on what.
* :mod:`bus` (RPC), :mod:`broker` (AMQP), :mod:`doors` (HTTP) and :mod:`config` (files) are the ports to the outside;
  :mod:`facts` is what they bring home.
* :mod:`daemons`, :mod:`stores`, :mod:`displays`, :mod:`web`, :mod:`processes` and :mod:`tokens` turn facts into
  findings (:mod:`finding`), without any I/O.
* :mod:`standalone` finds a ``porthole standalone`` and fetches the report that it makes of itself, by the same
  examination; :mod:`standalone_words` says what to do where there are no units.
* :mod:`report` shows them.

What a daemon alone can know it is asked over RPC; nothing is read from other hosts in any other way, and nothing is
left behind: the one token that is made is revoked again.
"""
