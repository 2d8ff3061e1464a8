# SPDX-License-Identifier: Apache-2.0
import itertools

from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common.model import ConsoleType
from porthole_novncproxy.doors import DOORS
from support.cases import naming


def test_each_door_has_its_options():
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([])
    for door in DOORS:
        with naming(door.name):
            options = conf[door.group]
            assert options[door.host_option]
            assert options[door.port_option]
            assert door.switch is None or options[door.switch] is True


def test_no_two_doors_are_the_same():
    for one, other in itertools.combinations(DOORS, 2):
        with naming(one.name, other.name):
            assert one.name != other.name
            assert (one.group, one.host_option) != (other.group, other.host_option)
            assert (one.group, one.port_option) != (other.group, other.port_option)


def test_a_console_of_each_type_has_one_door():
    assert sorted(name for door in DOORS for name in door.console_types) == sorted(ConsoleType)
