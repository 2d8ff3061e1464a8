# SPDX-License-Identifier: Apache-2.0
"""What the four daemons and the command share. It imports no service.

* The words: :mod:`errors` (one tree, without HTTP), :mod:`model` (instances, tokens, addresses), :mod:`context` (the
  user and the ids of a request).
* A process: :mod:`service` (start, reload, stop), :mod:`signals` and :mod:`early_sighup`, :mod:`listening` (why it
  cannot), :mod:`systemd` (readiness, watchdog), :mod:`log` with :mod:`redaction` (no token in a log), :mod:`conf` (all
  options, a module per group) with :mod:`config_faults` and :mod:`unknown_options`.
* The bus: :mod:`rpc` is the way to oslo.messaging, with its deadlines. Its parts are :mod:`rpc_transport`,
  :mod:`rpc_client` and :mod:`rpc_server`; :mod:`messaging` imports the library, and :mod:`oslo_messaging_patches` has
  each use of a private part of it. :mod:`private_parts` logs when such a part is gone.
* On the bus: :mod:`notifications` is what daemons publish; :mod:`discovery` finds the daemons that run;
  :mod:`diagnosis` has the descriptions that they send to ``porthole doctor``.
* The broker: :mod:`broker_watch` notices that it cannot be used, :mod:`broker` examines it with a
  :mod:`broker_connection`, and :mod:`broker_trouble` names the cause; :mod:`transport_url` parses its URL.
* The history: :mod:`history` is what the daemons report, and how it is delivered; :mod:`audit` sends it on as
  notifications, in the terms of :mod:`cadf`.
* :mod:`forwarded`: what reverse proxies say about a request, by one rule for the api and the proxy.
* :mod:`open_session`: what a proxy tells of an open console, and the filter of a list of them.
* :mod:`list_filters`: what the filters of sessions and of the history have in common.
* :mod:`static_files`: a folder served to browsers, without a way out of it.
* :mod:`primitives`: values from outside, of their type and within their bounds.
* :mod:`allowance`: how often a source may fail, for passwords and for tokens. :mod:`recent`: what was so a moment ago.
* Time and threads: :mod:`deadline`, :mod:`thread_pool`.
* Metrics: :mod:`metrics` is the list, :mod:`metrics_server` serves it, :mod:`metrics_gathering` does so for several
  processes; :mod:`pools` and :mod:`process_measures` have what each process measures.
* :mod:`rfb`: RFB messages (RFC 6143), without I/O.

The path of a call: a service's ``rpcapi`` module, :mod:`rpc_client`, the broker, :mod:`rpc_server`, the ``endpoint``
module of the other service.
"""
