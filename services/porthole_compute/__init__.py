# SPDX-License-Identifier: Apache-2.0
"""porthole-compute: the agent beside a hypervisor; knows its instances and where their VNC servers listen."""
