"""Alembic's entry point: it applies the migrations on the connection that `upgrade` was given."""

from alembic import context

from server.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
