"""Cut a file's index of record hashes into parts, each of so many rows that were written together.

PostgreSQL keeps its index: nobody waits for what is shipped there.
"""

import sqlalchemy as sa
from alembic import op

from detent.adapters.ledger_tables import SQLITE

revision = "0005"
down_revision = "0004"

TABLE = "decision_records"


def upgrade() -> None:
    """Lay out the new index and drop the old one."""
    if op.get_bind().dialect.name != SQLITE:
        return
    parts = [sa.text("id >> 12"), sa.text("substr(record_hash, 1, 16)")]
    op.create_index("decision_records_part", TABLE, parts)
    op.drop_index("decision_records_hash", TABLE)


def downgrade() -> None:
    """Stay: a file is not taken back to an earlier form."""
