# SPDX-License-Identifier: Apache-2.0
"""``porthole doctor``: what is wrong, and how to mend it.

Why: an operator on call wants one command that examines everything between a user's browser and a screen, names what
is broken, and says what to type. The path of an examination:

* :mod:`command` is cliff's command. The ``porthole`` program imports only this module; the command imports the others.
* :mod:`choice` decides what is examined: the daemons of this host's configuration, or a ``porthole standalone``.
* :mod:`run` gives the examination one deadline and makes the report.
* :mod:`examination` goes through the stages. :mod:`live_checks` has the daemons describe themselves, dial, and check a
  token; :mod:`parallel` asks several questions at once.
* The ports to the outside are :mod:`bus` (RPC), :mod:`broker` (AMQP), :mod:`url_check` (HTTP), :mod:`config` (files)
  and :mod:`standalone_port` (UNIX sockets). :mod:`facts` holds what they return.
* The judges turn facts into findings (:mod:`finding`), without I/O: :mod:`daemons`, :mod:`stores`, :mod:`history`,
  :mod:`displays`, :mod:`web`, :mod:`processes` and :mod:`tokens`.
* :mod:`standalone` asks a ``porthole standalone`` for the report that it makes of itself, by the same examination;
  :mod:`standalone_advice` puts the advice in words for a host without units.
* :mod:`report` formats the report.

A new finding is an id in :mod:`finding`, a line in the judge of its subject, and an entry in
``doc/source/troubleshooting.rst``. The doctor reads other hosts only over RPC. It leaves nothing behind: it revokes the
one token that it makes.
"""
