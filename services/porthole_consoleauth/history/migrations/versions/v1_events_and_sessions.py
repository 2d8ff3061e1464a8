# SPDX-License-Identifier: Apache-2.0
"""The first tables: events and sessions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

_OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Make the tables and their indexes."""
    op.create_table(
        "events",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("instance_uuid", sa.String(36)),
        sa.Column("session_id", sa.String(36)),
        sa.Column("console_type", sa.String(32)),
        sa.Column("mode", sa.String(16)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("project_id", sa.String(255)),
        sa.Column("client", sa.String(64)),
        sa.Column("proxy", sa.String(255)),
        sa.Column("process", sa.String(255)),
        sa.Column("compute_host", sa.String(255)),
        sa.Column("by", sa.String(255)),
        sa.Column("code", sa.BigInteger),
        sa.Column("reason", sa.String(256)),
        sa.Column("bytes_to_client", sa.BigInteger),
        sa.Column("bytes_from_client", sa.BigInteger),
        sa.Column("opened_at", sa.BigInteger),
        sa.Column("request_id", sa.String(255)),
        **_OPTIONS,
    )
    op.create_index("events_at", "events", ["at", "id"])
    op.create_index("events_project", "events", ["project_id", "at"])
    op.create_index("events_instance", "events", ["instance_uuid", "at"])
    op.create_index("events_session", "events", ["session_id"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("process", sa.String(255)),
        sa.Column("proxy", sa.String(255)),
        sa.Column("instance_uuid", sa.String(36)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("project_id", sa.String(255)),
        sa.Column("opened_at", sa.BigInteger),
        sa.Column("closed_at", sa.BigInteger),
        sa.Column("presumed", sa.Boolean, nullable=False, server_default=sa.false()),
        **_OPTIONS,
    )
    op.create_index("sessions_closed", "sessions", ["closed_at", "process"])
    op.create_index("sessions_presumed", "sessions", ["presumed", "process"])
    op.create_index("sessions_project", "sessions", ["project_id", "opened_at"])
