"""Samples of the training split that a network was trained without, as was declared."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, String, func, literal, select, true
from sqlalchemy.orm import QueryableAttribute


def stays(sample_id: QueryableAttribute[Any], left_out: Collection[str]) -> ColumnElement[bool]:
    """The condition on a sample that it is none of these."""
    if not left_out:
        return true()
    # As a subquery they are hashed once; as a list each sample would be compared with each.
    ids = func.unnest(literal(list(left_out), ARRAY(String))).table_valued("sample_id")
    return sample_id.not_in(select(ids.render_derived().c.sample_id))
