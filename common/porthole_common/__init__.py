# SPDX-License-Identifier: Apache-2.0
"""What the four daemons and the command share: errors, model, messages, configuration."""
