# SPDX-License-Identifier: Apache-2.0
"""porthole-compute: the agent beside a hypervisor. It knows the instances there, and where their VNC servers listen.

* :mod:`endpoint` answers RPC: :mod:`porthole_api` asks for a console (``get_vnc_console``), the proxy asks whether a
  console is still there (``validate_console``), or which of many are (``validate_consoles``). :mod:`validation`
  compares them. :mod:`rpcapi` is the client; :mod:`access_url` makes the URL.
* :mod:`drivers` is the port to the instances: libvirt, or a list in a file. :mod:`domain_xml` parses libvirt's XML,
  without I/O.
* :mod:`inventory` publishes all instances; every api subscribes. :mod:`revocation` has consoleauth revoke the tokens of
  an instance that stops, moves or is deleted.

The path of an instance's UUID to libvirt: :mod:`endpoint`, the driver of :mod:`drivers`, :mod:`domain_xml`. :mod:`main`
builds the process.
"""
