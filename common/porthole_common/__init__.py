# SPDX-License-Identifier: Apache-2.0
"""What the four daemons and the command share. It imports no service.

* The words: :mod:`errors` (one tree, without HTTP), :mod:`model` (instances, tokens, addresses), :mod:`context` (the
  user and the ids of a request).
* A process: :mod:`service` (start, reload, stop), :mod:`signals` and :mod:`early_sighup`, :mod:`listening` (why it
  cannot), :mod:`systemd` (readiness, watchdog), :mod:`log` with :mod:`redaction` (no token in a log), :mod:`conf` (all
  options, a module per group) with :mod:`config_faults`.
* :mod:`forwarded`: what reverse proxies say about a request, by one rule for the api and the proxy.
* The bus: :mod:`rpc` is the way to oslo.messaging, with its deadlines; :mod:`notifications` is what daemons publish;
  :mod:`discovery` finds the daemons that run; :mod:`diagnosis` is what they tell ``porthole doctor``. :mod:`broker` and
  :mod:`broker_watch` say why a broker cannot be used; :mod:`transport_url` parses its URL.
* Time and threads: :mod:`deadline`, :mod:`thread_pool`.
* :mod:`rfb`: RFB messages (RFC 6143), without I/O.

The path of a call: a service's ``rpcapi`` module, :mod:`rpc`, the ``endpoint`` module of the other service.
"""
