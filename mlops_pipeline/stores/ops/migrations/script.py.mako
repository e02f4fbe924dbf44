"""${message}

Revision: ${up_revision}, after ${down_revision | comma,n}. Add it to REVISIONS in schema.py.
"""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    ${upgrades if upgrades else "pass"}
