"""The baselines, one file each, under the names used in the rows."""

from types import ModuleType

from benchmarks.quality.methods import (
    bad_teacher,
    conv_transpose,
    delete,
    do_nothing,
    fine_tune,
    l1_sparse,
    msg,
    neggrad_plus,
    salun,
    scrub,
    ssd,
    training,
)

__all__ = ["METHODS", "training"]

METHODS: dict[str, ModuleType] = {
    "do nothing": do_nothing,
    "fine-tune": fine_tune,
    "NegGrad+": neggrad_plus,
    "SCRUB": scrub,
    "Bad Teacher": bad_teacher,
    "SalUn": salun,
    "L1-sparse": l1_sparse,
    "SSD": ssd,
    "DELETE": delete,
    "MSG": msg,
    "CT": conv_transpose,
}
