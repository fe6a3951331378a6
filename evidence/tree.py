"""The Merkle tree over the audit trail, as it is kept in Postgres, and its proofs.

Every complete node is a row of `audit_nodes`, so a proof reads O(log n) rows.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import ARRAY, BigInteger, Integer, Row, Select, and_, func, literal, select

from domain.tables import LogCheckpoint, LogNode
from evidence import merkle
from evidence.merkle import Node, Span

NEWEST_CHECKPOINT = select(LogCheckpoint).order_by(LogCheckpoint.size.desc()).limit(1)


def fetching(spans: Iterable[Span]) -> Select[int, int, bytes]:
    """The statement that reads the nodes from which the hashes of these spans are made."""
    wanted = sorted(merkle.needed(spans))
    listed = (
        func.unnest(
            literal([level for level, _ in wanted], ARRAY(Integer)),
            literal([index for _, index in wanted], ARRAY(BigInteger)),
        )
        .table_valued("level", "index", name="listed")
        .render_derived()
    )
    is_listed = and_(LogNode.level == listed.c.level, LogNode.index == listed.c.index)
    return select(LogNode.level, LogNode.index, LogNode.hash).join(listed, is_listed)


def by_node(rows: Iterable[Row[int, int, bytes]]) -> dict[Node, bytes]:
    """What `fetching` read."""
    return {(level, index): node for level, index, node in rows}


def proof(spans: Sequence[Span], nodes: Mapping[Node, bytes]) -> list[str]:
    """The hashes of the spans, in base64: an inclusion or a consistency proof."""
    return [b64encode(merkle.hash_of(span, nodes)).decode() for span in spans]
