# SPDX-License-Identifier: Apache-2.0
"""What the documentation and the samples say of options by host is true of the code."""

import re
from pathlib import Path

from porthole_common import conf as porthole_conf

_ROOT = Path(__file__).resolve().parents[3]
_ROWS = re.compile(r"\* - ``\[(\w+)\] (\w+)``\n +- (.+)\n")
# Who reads an option of a host that is set on this one.
_READERS = {
    "compute nodes": {"porthole_compute"},
    "controllers": {"porthole_api", "porthole_consoleauth", "porthole_novncproxy"},
}
_DAEMONS = frozenset().union(*_READERS.values())


def read_rows() -> dict[tuple[str, str], str]:
    """Return which hosts the page says that an option is for, by group and name."""
    text = (_ROOT / "doc" / "source" / "install.rst").read_text(encoding="utf-8")
    table = text.split("Which option goes onto which host")[1].split("\nFiles\n")[0]
    return {(group, name): hosts.strip("*") for group, name, hosts in _ROWS.findall(table)}


def find_readers(name: str) -> set[str]:
    """Return the daemons whose code reads the option, as an attribute or by the proxy's table of doors."""
    reads = re.compile(rf'(?:\.|_option="){name}\b')
    paths = [path for daemon in _DAEMONS for path in (_ROOT / "services" / daemon).rglob("*.py")]
    found = [path for path in paths if reads.search(path.read_text(encoding="utf-8"))]
    return {path.relative_to(_ROOT / "services").parts[0] for path in found}


def test_the_table_names_options_that_there_are_and_hosts_that_read_them() -> None:
    rows = read_rows()
    assert len(rows) > 10
    known = {(group, option.dest) for group, options in porthole_conf.list_opts() for option in options}
    known |= {("DEFAULT", "transport_url"), ("oslo_messaging_rabbit", "ssl")}
    for (group, name), hosts in rows.items():
        assert (group, name) in known
        if hosts in _READERS and not group.startswith("oslo"):
            readers = find_readers(name)
            assert readers, name
            assert readers <= _READERS[hosts], name


def test_the_samples_of_reverse_proxies_put_each_option_where_it_is_read() -> None:
    rows = read_rows()
    for sample in ("haproxy.cfg", "nginx.conf"):
        text = (_ROOT / "deploy" / "proxy" / sample).read_text(encoding="utf-8")
        computes, controllers = re.split(r"In porthole\.conf on both controllers", text.split("\nglobal")[0])
        assert "porthole.conf on every compute node" in computes
        for part, hosts in ((computes, "compute nodes"), (controllers, "controllers")):
            group = ""
            for line in re.findall(r"^#   (.+)$", part, re.MULTILINE):
                if header := re.fullmatch(r"\[(\w+)\]", line):
                    group = header[1]
                elif group and " = " in line:
                    assert rows.get((group, line.split(" = ")[0]), hosts) == hosts, line
