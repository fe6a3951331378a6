"""Where rows of a dataset stand within the transaction that loads them; always empty outside.

Not temporary tables: who may create those can put one before a table of ours, under its name.
"""

from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, String, Table

from domain.tables.columns import Base

staged_samples = Table(
    "staged_samples",
    Base.metadata,
    Column("sample_id", String),
    Column("position", BigInteger),
    Column("label", BigInteger),
    Column("split", String),
    Column("usable", Boolean),
    Column("group_digest", LargeBinary),
    Column("content", LargeBinary),
    prefixes=["UNLOGGED"],
)
"""Every row of a dataset whose id can be stored, and whether it may be used."""

staged_positions = Table(
    "staged_positions",
    Base.metadata,
    Column("sample_id", String),
    Column("position", BigInteger),
    prefixes=["UNLOGGED"],
)
"""Every id of a dataset, and where it stands in files that were written anew."""
