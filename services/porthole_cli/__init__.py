# SPDX-License-Identifier: Apache-2.0
"""The ``porthole`` command: consoles and servers from the shell, a whole Porthole in one process, and the doctor.

* :mod:`main` has the program's options and the table of its commands.
* The client commands: :mod:`consoles` (``get-vnc-console``, ``console create``), :mod:`servers` (``list``, ``show``),
  :mod:`sessions` (``session list|show|end``) and :mod:`audit` (``audit list``) ask the API through :mod:`client`;
  :mod:`arguments` has what they share. :mod:`cloud` finds the API as OpenStack's clients do; :mod:`clouds_file` checks
  clouds.yaml, :mod:`cloud_session` gives all requests one deadline, :mod:`forward_proxy` knows the proxies in the
  environment.
* What a user sees of a failure: :mod:`failures` turns keystoneauth's exceptions into :mod:`errors`; :mod:`redaction`
  removes passwords, :mod:`output` reports a standard output that cannot be written, :mod:`invocation` names the command
  to type.
* ``porthole standalone``: :mod:`standalone` is the command, :mod:`wiring` builds the four services in one process, and
  :mod:`doctor_socket` lets the doctor examine it.
* ``porthole doctor``: :mod:`doctor`.

The client commands import no service, so that they start fast. A new command is a class in a module of its own and a
row of ``COMMANDS`` in :mod:`main`.
"""
