# SPDX-License-Identifier: Apache-2.0
"""``porthole standalone``: the command line of the four services in one process.

Why apart from :mod:`porthole_cli.wiring`: every ``porthole`` command imports this module, and only this command imports
the services. Called by cliff through :mod:`porthole_cli.main`.
"""

import argparse

from cliff.command import Command


class Standalone(Command):
    """Run all of Porthole in one process, for the virtual machines of this one host.

    Messages and tokens are kept in memory and everything listens on loopback, so only the hypervisor must run.
    Ctrl-C ends it, and all its tokens with it. It does not read /etc/porthole.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the flags; each sets one option of the configuration file."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add = parser.add_argument
        add("--config-file", metavar="PATH", action="append", default=[], help="Read this porthole.conf.")
        add("--libvirt-uri", metavar="URI", help="[libvirt] connection_uri: the hypervisor. Default: qemu:///system")
        add("--driver", choices=["libvirt", "static"], help="[compute] driver: how the instances are found.")
        add("--instances-file", metavar="PATH", help="[static] instances_file: VNC servers in YAML. Implies static.")
        add("--api-port", metavar="PORT", type=int, help="[api] bind_port. Default: 8774")
        add("--novnc-port", metavar="PORT", type=int, help="[vnc] novncproxy_port. Default: 6080")
        add("--xvp-port", metavar="PORT", type=int, help="[vnc] xvpvncproxy_port. Default: 6081")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Serve until a signal; return the exit status of :func:`porthole_common.service.main`."""
        from porthole_cli import wiring  # noqa: PLC0415

        return wiring.run(parsed_args, debug=self.app.options.debug)
