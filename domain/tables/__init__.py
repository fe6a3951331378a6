"""The tables, one file a subject. Rows hold the truth; how they may change is in `domain.states`.

Not `models`: here a *model* is a neural network, always.
"""

from domain.tables.catalogue import (
    Dataset,
    DatasetCheck,
    MembershipStatistics,
    Model,
    ModelVersion,
    NearDuplicate,
    OutOfSamplePrediction,
    ReferenceTables,
    Sample,
    Tombstone,
    derived_data,
)
from domain.tables.columns import Base
from domain.tables.dataset_states import DatasetState, FormerSample
from domain.tables.evidence import (
    AuditEvent,
    Certificate,
    CertifiedCheckpoint,
    LogAnchor,
    LogCheckpoint,
    LogLeaf,
    LogNode,
    SigningKey,
)
from domain.tables.jobs import AlignmentScore, Evaluation, Job, JobCheckpoint, Round, VerdictTest
from domain.tables.pooled import PooledAudit, PooledStatistic
from domain.tables.registrations import VersionRegistration
from domain.tables.requests import (
    DeletionRequest,
    DeletionTarget,
    Estimate,
    EstimateSample,
    EstimateTarget,
    IdempotencyKey,
    RequestKey,
    RequestSample,
    ReviewDecision,
)
from domain.tables.staging import staged_positions, staged_samples
from domain.tables.suppression import LiftedSample, SuppressionLift
from domain.tables.webhooks import WebhookDelivery, WebhookEndpoint

__all__ = [
    "AlignmentScore",
    "AuditEvent",
    "Base",
    "Certificate",
    "CertifiedCheckpoint",
    "Dataset",
    "DatasetCheck",
    "DatasetState",
    "DeletionRequest",
    "DeletionTarget",
    "Estimate",
    "EstimateSample",
    "EstimateTarget",
    "Evaluation",
    "FormerSample",
    "IdempotencyKey",
    "Job",
    "JobCheckpoint",
    "LiftedSample",
    "LogAnchor",
    "LogCheckpoint",
    "LogLeaf",
    "LogNode",
    "MembershipStatistics",
    "Model",
    "ModelVersion",
    "NearDuplicate",
    "OutOfSamplePrediction",
    "PooledAudit",
    "PooledStatistic",
    "ReferenceTables",
    "RequestKey",
    "RequestSample",
    "ReviewDecision",
    "Round",
    "Sample",
    "SigningKey",
    "SuppressionLift",
    "Tombstone",
    "VerdictTest",
    "VersionRegistration",
    "WebhookDelivery",
    "WebhookEndpoint",
    "derived_data",
    "staged_positions",
    "staged_samples",
]
