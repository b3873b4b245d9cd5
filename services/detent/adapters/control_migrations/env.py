"""Run the steps on the connection that `control_database` hands over; Alembic loads this."""

from alembic import context

from detent.adapters.control_database import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,
    # A ledger may lie in the same database and has a line of its own.
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
