"""The routes of datasets."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

from lethe.calls import Call, Listed, members
from lethe.routes.building import delete, get, pages, post
from lethe.routing import listing, route
from lethe.schemas.common import Page, Settings
from lethe.schemas.datasets import (
    BadRows,
    Checked,
    Columns,
    Dataset,
    Erase,
    FileCheck,
    InputKind,
    LeakingGroups,
    Lift,
    Lifted,
    Splits,
)
from lethe.schemas.states import DatasetState

CHECK = "/v1/datasets/{name}/check"
SUPPRESSION = "/v1/datasets/{name}/suppression"


class Datasets:
    """What models were trained on."""

    @route
    def register_dataset(
        self,
        name: str,
        uri: str,
        *,
        kind: InputKind | str,
        columns: Columns | Settings,
        splits: Splits | Settings | None = None,
        input_shape: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        bad_rows: BadRows | str | None = None,
        leaking_groups: LeakingGroups | str | None = None,
        erase: Erase | Settings | None = None,
    ) -> Call[Dataset]:
        """Register a dataset. A job indexes it: `wait` until it is `ready`.

        The same definition sent again gets the same answer. When the registration has failed, send
        it again, mended, under the same name.

        Args:
            uri: a Parquet file or a directory of them, where the service may read.
            kind: what the inputs are: `image`, `pixels`, `tokens` or `features`.
            columns: which column holds the sample ids, the inputs, the labels, the splits and, if
                there is one, whose sample it is.
            splits: the values in the split column.
            input_shape: shape of one input, which `pixels` need; None for encoded images.
            classes: names of the classes in the order of the label numbers; labels that are text
                need it.
            bad_rows: `refuse` unless given, or `skip`.
            leaking_groups: what to do with a group in training and in another split: `report` it
                unless given, or `refuse` the dataset.
            erase: what else is deleted when samples are forgotten.
        """
        body = {
            "name": name,
            "uri": uri,
            "kind": kind,
            "columns": members(columns),
            "splits": members(splits),
            "input_shape": None if input_shape is None else list(input_shape),
            "classes": None if classes is None else list(classes),
            "bad_rows": bad_rows,
            "leaking_groups": leaking_groups,
            "erase": members(erase),
        }
        return post("/v1/datasets", Dataset, body, harmless=True)

    @listing
    def list_datasets(self) -> Listed[Page[Dataset], Dataset]:
        """All datasets, newest first."""
        return pages("/v1/datasets", Page[Dataset])

    @route
    def read_dataset(self, name: str) -> Call[Dataset]:
        """One dataset: its status, and what indexing found."""
        return get("/v1/datasets/{name}", Dataset, name=name)

    @route
    def delete_dataset(self, name: str) -> Call[Dataset]:
        """Delete a dataset with its index; refused while models were trained on it. `wait` until it
        is purged. Its files stay, its name stays taken, and so does what is suppressed."""
        return delete("/v1/datasets/{name}", Dataset, name=name)

    @route
    def register_state(
        self,
        name: str,
        uri: str | None = None,
        *,
        refuse_suppressed: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Call[DatasetState]:
        """Tell that a dataset has other rows now. A job finds what is different: `wait` for it.

        Models stay with the state that they were trained on.

        Args:
            uri: where the files are now; None if they replaced those that were indexed.
            refuse_suppressed: refuse the state if samples come back that may not be trained on.
            idempotency_key: names this state, so that sending it again changes nothing. A new one
                unless given.
        """
        body = {"uri": uri, "refuse_suppressed": refuse_suppressed}
        call = post("/v1/datasets/{name}/states", DatasetState, body, name=name)
        return replace(call, idempotency_key=idempotency_key or str(uuid4()))

    @route
    def read_state(self, name: str, state_id: UUID | str) -> Call[DatasetState]:
        """One state of a dataset: how far it is, and what is different in it."""
        path = "/v1/datasets/{name}/states/{state_id}"
        return get(path, DatasetState, name=name, state_id=state_id)

    @route
    def check_ids(self, name: str, sample_ids: Sequence[str]) -> Call[Checked]:
        """Which of up to 100,000 ids may not be trained on. `suppressed` takes any number."""
        return post(CHECK, Checked, {"sample_ids": list(sample_ids)}, harmless=True, name=name)

    @route
    def lift_suppression(
        self, name: str, sample_ids: Sequence[str], *, reason: str, authorised_by: str
    ) -> Call[Lifted]:
        """Let up to 100,000 samples that models have forgotten be trained on again.

        The models that forgot them stay as they are. A new deletion request suppresses a sample
        again.

        Args:
            reason: such as where the new consent is recorded. Stored, never logged.
            authorised_by: the person who answers for it. Stored, never logged.
        """
        body = {"sample_ids": list(sample_ids), "reason": reason, "authorised_by": authorised_by}
        return post(f"{SUPPRESSION}/lift", Lifted, body, harmless=True, name=name)

    @listing
    def list_lifts(self, name: str) -> Listed[Page[Lift], Lift]:
        """Who lifted suppressions of the dataset, and why; newest first."""
        return pages(f"{SUPPRESSION}/lifts", Page[Lift], name=name)

    @route
    def check_file(self, name: str, uri: str, *, column: str | None = None) -> Call[FileCheck]:
        """Which rows of a Parquet file may not be trained on. A job reads it: `wait` for it.

        Args:
            uri: a file or a directory of them, where the service may read.
            column: the one with the sample ids; `sample_id` unless given.
        """
        return post(CHECK, FileCheck, {"uri": uri, "column": column}, name=name)

    @route
    def read_check(self, name: str, check_id: UUID | str) -> Call[FileCheck]:
        """One check of a Parquet file: how far it is, and what it found."""
        path = "/v1/datasets/{name}/checks/{check_id}"
        return get(path, FileCheck, name=name, check_id=check_id)
