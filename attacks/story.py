"""A small honest log with three requests and their certificates.

One completed with the verdict `pass`, and was certified again when the old weights were purged; one
had nothing to forget; one got `fail` and was accepted by a person. The log changed its signing key
meanwhile.
"""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import rfc8785

from attacks.evidence import Evidence, Given, Json, Log, Signer, bundle
from evidence.signed_notes import read

ORIGIN = "lethe.example/log"
FIRST, SECOND = Signer.of(ORIGIN, "first"), Signer.of(ORIGIN, "second")
START = datetime(2026, 3, 2, 8, tzinfo=UTC)
OLD_WEIGHTS, NEW_WEIGHTS, LAST_WEIGHTS = b"version 1", b"version 2", b"version 3"


def evidence() -> Evidence:
    """The evidence as three auditors hold it, each with the current signing key and an older
    checkpoint signed by the previous key."""
    return _Story().told()


def hexed(name: str | bytes) -> str:
    """A hash that stands in for a digest in the evidence."""
    return sha256(name if isinstance(name, bytes) else name.encode()).hexdigest()


def row_id(name: str) -> str:
    """The id of the row with this name."""
    return str(UUID(bytes=sha256(name.encode()).digest()[:16], version=5))


class _Story:
    def __init__(self) -> None:
        self.log = Log(ORIGIN, ())
        self.signers: tuple[Signer, ...] = (FIRST,)

    def told(self) -> Evidence:
        self._introduce(FIRST, None)
        self._tell("api", "model.registered", "cnn", name="cnn", dataset=row_id("digits"))
        self._tell("worker", "job.started", "registering", attempt=1)
        self._version(1, OLD_WEIGHTS, None, "registering")
        self._tell("worker", "job.completed", "registering", attempt=1)
        self._tell("api", "webhook.registered", "hook")
        self._request("main", samples=3, duplicates=1)
        self._job("main-job")
        self._version(2, NEW_WEIGHTS, OLD_WEIGHTS, "main-job", status="champion",
                      measured=80, right_before=75, right_after=40, lost_classes=[1],
                      accept_accuracy=True)  # fmt: skip
        self._tell("worker", "version.superseded", "version-1", number=1)
        self._tell("worker", "job.completed", "main-job", attempt=1, verdict="pass")
        self._tell("worker", "request.completed", "main")
        replaced = self._certify("main", [_passed(purged_at=None)])
        kept = self.log.checkpoint(self.signers)
        self._request("other", samples=2, duplicates=0, subjects=2, unknown_subjects=1,
                      subject_samples=1, dataset="digits", indexed_at=_minute(0))  # fmt: skip
        self._tell("api", "request.completed", "other")
        other = self._certify("other", [_nothing_to_forget()])
        self._request("failed", samples=4, duplicates=0)
        self._job("failed-job")
        self._version(3, LAST_WEIGHTS, NEW_WEIGHTS, "failed-job", status="candidate")
        self._tell("worker", "job.completed", "failed-job", attempt=1, verdict="fail")
        self._tell("worker", "request.needs_review", "failed")
        self._introduce(SECOND, FIRST)
        self.signers = (SECOND, FIRST)
        self._tell("api", "request.decided", "failed", decision="accept",
                   job=row_id("failed-job"), by="admin")  # fmt: skip
        self._tell("api", "version.superseded", "version-2", number=2)
        self._tell("api", "version.promoted", "version-3", number=3,
                   weights_sha256=hexed(LAST_WEIGHTS))  # fmt: skip
        self._tell("api", "request.completed", "failed")
        failed = self._certify("failed", [_failed(_minute(self.log.size - 2))])
        self._tell("worker", "version.purged", "version-1", model=row_id("cnn"), number=1,
                   job=row_id("purging"), weights_sha256=hexed(OLD_WEIGHTS), deleted=3, kept=[],
                   left=0)  # fmt: skip
        main = self._certify("main", [_passed(purged_at=_minute(self.log.size - 1))])
        self.signers = (SECOND,)
        for number in range(20):
            self._tell("api", "webhook.registered", f"hook-{number}")
        return Evidence(
            log=self.log,
            signers=self.signers,
            main=self._given("main", main, kept),
            other=self._given("other", other, kept, FIRST, SECOND),
            failed=self._given("failed", failed, kept),
            replaced=replaced,
        )

    def _tell(self, actor: str, event: str, subject: str, **data: Any) -> None:
        size = self.log.size
        self.log = self.log.appended(
            {
                "actor": actor,
                "at": _minute(size),
                "data": data,
                "event": event,
                "id": size + 1 + size // 7,  # sequences have gaps
                "subject_id": row_id(subject),
            }
        )

    def _introduce(self, signer: Signer, replaces: Signer | None) -> None:
        self._tell(
            "worker", "signing_key.introduced", f"key-{signer.note_key.hash.hex()}", name=ORIGIN,
            public_key=b64encode(signer.public).decode(),
            replaces=b64encode(replaces.public).decode() if replaces else None,
            endorsement=replaces and replaces.word_for(signer),
            acknowledgement=replaces and signer.word_for(replaces),
        )  # fmt: skip

    def _request(self, name: str, *, samples: int, duplicates: int, **subjects: Any) -> None:
        at = _minute(self.log.size)
        self._tell(
            "api", "request.received", name, objective="untrain_samples", exact=False,
            received_at=at, due_at=at.replace("-03-", "-04-"), samples=samples,
            duplicates=duplicates,
            models=[row_id("cnn")], commitment=hexed(f"commitment {name}"),
            subject_ref_hmac=hexed(f"subject {name}"), reason_hmac=None, **subjects,
        )  # fmt: skip

    def _job(self, name: str) -> None:
        self._tell("worker", "job.queued", name, model=row_id("cnn"))
        self._tell("worker", "job.started", name, attempt=1)

    def _version(
        self, number: int, weights: bytes, parent: bytes | None, job: str, **more: Any
    ) -> None:
        made: Json = {}
        if parent:
            made = {"parent_sha256": hexed(parent), "samples": 3, "mode": "approximate"}
        self._tell(
            "worker", "version.created", f"version-{number}", model=row_id("cnn"), number=number,
            job=row_id(job), weights_sha256=hexed(weights), **made, **more,
        )  # fmt: skip

    def _certify(self, name: str, results: list[Json]) -> Json:
        """Issue a certificate under a checkpoint of all entries so far."""
        request_id, log = row_id(name), self.log
        mine = [entry for entry in log.entries if entry["subject_id"] == request_id]
        received = next(entry for entry in mine if entry["event"] == "request.received")
        done = log.find("request.completed", request_id)
        number = 1 + sum(entry["event"] == "certificate.issued" for entry in mine)
        about = self._about(name)
        told = dict(received["data"])
        del told["models"]
        subjects = _looked_up(told, received["at"])
        predicate = {
            "request": {
                "id": request_id,
                "completed_at": log.entries[done]["at"],
                "exact_asked": told.pop("exact"),
                **told,
                **({"subjects": subjects} if subjects else {}),
            },
            "results": results,
            "scope": _scope(results, subjects),
            "log": {
                "origin": ORIGIN,
                "positions": [e["position"] for e in log.entries if e["subject_id"] in about],
                "completed": log.entry(done, log.size),
                "checkpoint": log.checkpoint(self.signers),
            },
            "issued": {"number": number, "at": _minute(log.size)},
        }
        statement: Json = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": _subject(request_id, told["commitment"], results),
            "predicateType": "urn:lethe:unlearning:v1",
            "predicate": predicate,
        }
        payload = rfc8785.dumps(statement)
        self._tell("worker", "certificate.issued", name, number=number, sha256=hexed(payload))
        return self.signers[0].envelope(payload)

    def _about(self, name: str) -> set[str]:
        """The subjects of the events about a request."""
        versions = {"main": ("version-1", "version-2"), "failed": ("version-2", "version-3")}
        keys = {
            entry["subject_id"]
            for entry in self.log.entries
            if entry["event"] == "signing_key.introduced"
        }
        return {row_id(each) for each in (name, f"{name}-job", *versions.get(name, ()))} | keys

    def _given(self, name: str, envelope: Json, kept: str, *keys: Signer) -> Given:
        built = bundle(
            self.log,
            self.signers,
            request_id=row_id(name),
            subjects=self._about(name),
            envelope=envelope,
            since=read(kept).size,
            keys=[
                {"name": ORIGIN, "public_key": b64encode(signer.public).decode()}
                for signer in (FIRST, SECOND)
            ],
            anchors=[
                {"kind": "directory", "size": 12, "at": _minute(12), "receipt": None},
                {"kind": "rfc3161", "size": 30, "at": _minute(30), "receipt": "dG9rZW4="},
            ],
        )
        return Given(built, tuple(key.text for key in keys or (SECOND,)), kept)


def _minute(number: int) -> str:
    at = START + timedelta(minutes=number, microseconds=number * 1001)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _looked_up(told: Json, at: str) -> Json | None:
    """What is said of subjects, taken out of what the log was told; None where none was named."""
    if "subjects" not in told:
        return None
    return {
        "named": told.pop("subjects"),
        "unknown": told.pop("unknown_subjects"),
        "samples": told.pop("subject_samples"),
        "dataset": told.pop("dataset"),
        "indexed_at": told.pop("indexed_at"),
        "looked_up_at": at,
    }


def _scope(results: list[Json], subjects: Json | None) -> Json:
    words = {
        "pass": "Influence reduced to within the measured range.",
        "fail": "By these tests the samples can still be told apart.",
        None: "There was nothing to forget.",
    }
    lost = " Class 1 lost all of its training samples: it went from 0.875 to 0.000."
    lines = [
        f"Model {r['model']}: {words[r['verdict']]}{lost if 'accuracy' in r else ''}"
        for r in results
    ]
    if subjects:
        found = f"No data was found there of {subjects['unknown']} of them."
        lines.insert(0, f"Subjects: looked up in dataset {subjects['dataset']}. {found}")
    return {
        "statement": "\n".join(lines),
        "not_proven": [
            "That no copy of the samples is left elsewhere.",
            "That no other test could tell the samples apart.",
        ],
    }


def _subject(request_id: str, commitment: str, results: list[Json]) -> list[Json]:
    made = [
        {
            "name": f"{result['model']}/versions/{result['after']['version']}",
            "digest": {"sha256": result["after"]["weights_sha256"]},
        }
        for result in results
        if result["after"]
    ]
    return made or [{"name": f"request/{request_id}", "digest": {"sha256": commitment}}]


def _passed(*, purged_at: str | None) -> Json:
    return {
        **_result(),
        "verdict": "pass",
        "before": {"version": 1, "weights_sha256": hexed(OLD_WEIGHTS)},
        "after": {"version": 2, "weights_sha256": hexed(NEW_WEIGHTS)},
        "tests": [_test("before", 0.001), _test("after", 0.4), _guard()],
        "not_trained_on": 1,
        "accuracy": {
            "measured_on": "test",
            "samples": 80,
            "before": 0.9375,
            "after": 0.5,
            "classes": [
                {"label": 0, "samples": 40, "before": 1.0, "after": 1.0},
                {"label": 1, "samples": 40, "before": 0.875, "after": 0.0},
            ],
            "lost_classes": [1],
        },
        "accepted_accuracy": {
            "accepted": True,
            "objections": ["no_better_than_chance"],
            "train": 0.5,
            "train_samples": 100,
            "holdout": 0.5,
            "holdout_samples": 40,
        },
        "purge": {
            "superseded_weights": [
                {
                    "version": 1,
                    "weights_sha256": hexed(OLD_WEIGHTS),
                    "due_at": _minute(4000),
                    "purged_at": purged_at,
                }
            ]
        },
    }


def _failed(decided_at: str) -> Json:
    return {
        **_result(),
        "verdict": "fail",
        "before": {"version": 2, "weights_sha256": hexed(NEW_WEIGHTS)},
        "after": {"version": 3, "weights_sha256": hexed(LAST_WEIGHTS)},
        "tests": [_test("before", 0.001), _test("after", 0.002), _guard()],
        "approval": {
            "decision": "accept",
            "decided_by": "admin",
            "decided_at": decided_at,
            "ground_hmac": hexed("ground"),
        },
    }


def _nothing_to_forget() -> Json:
    return {
        **_result(),
        "kind": "nothing_to_forget",
        "before": {"version": 2, "weights_sha256": hexed(NEW_WEIGHTS)},
        "method": None,
        "alpha": None,
        "permutations": None,
        "audit_seed": None,
        "already_forgotten": 2,
    }


def _result() -> Json:
    return {
        "model": "cnn",
        "model_id": row_id("cnn"),
        "status": "completed",
        "kind": "approximate",
        "verdict": None,
        "before": None,
        "after": None,
        "method": {
            "name": "alternating alignment and distillation",
            "mode": "approximate",
            "mode_reason": "few samples",
            "config": {"cycles": 4, "rates": [0.01, 0.001], "seed": 77},
            "seed": 77,
            "code_version": "0.1.0",
            "libraries": {"torch": "2.13.0", "numpy": "2.4.0"},
            "device": "cpu",
        },
        "tests": [],
        "alpha": 0.05,
        "permutations": 999,
        "audit_seed": 77,
        "oracle_used": False,
        "already_forgotten": 0,
        "not_trained_on": 0,
        "approval": None,
        "purge": {"superseded_weights": []},
    }


def _test(moment: str, p_value: float) -> Json:
    return {
        "moment": moment,
        "name": "membership_loss",
        "value": 0.61,
        "low": 0.55,
        "high": 0.67,
        "expected": 0.5,
        "threshold": 0.125,
        "p_value": p_value,
        "forget_samples": 3,
        "holdout_samples": 300,
        "passed": p_value > 0.05,
    }


def _guard() -> Json:
    return {
        **_test("guard", 0.9),
        "name": "test_accuracy",
        "low": 0.01,
        "high": None,
        "expected": 0.0,
        "threshold": 0.03,
        "forget_samples": 0,
    }
