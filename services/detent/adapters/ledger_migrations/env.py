"""Run the steps on the connection that `ledger_migrating` hands over; Alembic loads this."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
