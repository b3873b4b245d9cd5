"""Declare the tables of the control database: what operators change and services follow.

Registry today; rollouts and the kill switch belong here too. The tables of the registry begin
with `registry_`. `control_migrations` brings a database to this form.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData()
STATUSES = "'staged', 'production', 'deprecated'"
PRODUCTION = text("status = 'production'")
# Numbers itself in both databases.
NUMBER = BigInteger().with_variant(Integer, "sqlite")

# One row per model that the registry holds; `pointer` and `manifest` are canonical JSON.
MODELS = Table(
    "registry_models",
    METADATA,
    Column("registry_id", Text, primary_key=True),
    Column("model_name", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("model_version_hash", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("registered_at_ms", BigInteger, nullable=False),
    Column("pointer", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    CheckConstraint(f"status IN ({STATUSES})", name="registry_models_status"),
    UniqueConstraint("model_id", name="registry_models_model_id"),
    # The database itself holds that a line has one model in production.
    Index(
        "registry_models_production",
        "model_name",
        unique=True,
        postgresql_where=PRODUCTION,
        sqlite_where=PRODUCTION,
    ),
)
# What was done, in its order; nothing is ever taken away.
HISTORY = Table(
    "registry_history",
    METADATA,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("model_name", Text, nullable=False),
    Column("registry_id", Text, nullable=False),
    Column("event", Text, nullable=False),
    Index("registry_history_name", "model_name", "id"),
)
