"""Which right each method needs: the one table. Pure.

A method that is not in it is served to nobody. What runs code on a node, directly or in time, is for operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum


class Role(IntEnum):
    """What people and programs may do; each role includes those below it. Numbers are those of the contract."""

    VIEWER = 1
    INFERENCE = 2
    OPERATOR = 3


class Other(Enum):
    """Rights that are no role."""

    EVERYBODY = "everybody"
    NODE = "a node, by its certificate"


Right = Role | Other

_ACCESS = "roundhouse.v1.AccessService."
_CATALOG = "roundhouse.v1.CatalogService."
_DEPLOYMENT = "roundhouse.v1.DeploymentService."
_EVENT = "roundhouse.v1.EventService."
_INFERENCE = "roundhouse.v1.InferenceService."
_NODE = "roundhouse.v1.NodeService."
_AGENT = "roundhouse.internal.v1.AgentService."
_ENROLLMENT = "roundhouse.internal.v1.EnrollmentService."
_FLEET = "roundhouse.internal.v1.FleetService."
_HEALTH = "grpc.health.v1.Health."
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection."  # v1 is served from the same descriptor

RIGHTS: Mapping[str, Right] = {
    _DEPLOYMENT + "CreateDeployment": Role.OPERATOR,
    _DEPLOYMENT + "GetDeployment": Role.VIEWER,
    _DEPLOYMENT + "ListDeployments": Role.VIEWER,
    _DEPLOYMENT + "UpdateDeployment": Role.OPERATOR,
    _DEPLOYMENT + "ScaleDeployment": Role.OPERATOR,
    _DEPLOYMENT + "DeleteDeployment": Role.OPERATOR,
    _DEPLOYMENT + "WatchDeployments": Role.VIEWER,
    _DEPLOYMENT + "PlanDeployment": Role.VIEWER,
    _DEPLOYMENT + "ListReplicas": Role.VIEWER,
    _DEPLOYMENT + "WatchReplicas": Role.VIEWER,
    _DEPLOYMENT + "StreamLogs": Role.VIEWER,
    _CATALOG + "RegisterFamily": Role.OPERATOR,
    _CATALOG + "GetFamily": Role.VIEWER,
    _CATALOG + "ListFamilies": Role.VIEWER,
    _CATALOG + "DeleteFamily": Role.OPERATOR,
    _CATALOG + "ResolveModel": Role.VIEWER,
    _CATALOG + "ListCachedModels": Role.VIEWER,
    _CATALOG + "DeleteCachedModel": Role.OPERATOR,
    _NODE + "GetNode": Role.VIEWER,
    _NODE + "ListNodes": Role.VIEWER,
    _NODE + "WatchNodes": Role.VIEWER,
    _NODE + "CordonNode": Role.OPERATOR,
    _NODE + "UncordonNode": Role.OPERATOR,
    _NODE + "DrainNode": Role.OPERATOR,
    _EVENT + "ListEvents": Role.VIEWER,
    _EVENT + "WatchEvents": Role.VIEWER,
    _INFERENCE + "Generate": Role.INFERENCE,
    _INFERENCE + "Chat": Role.INFERENCE,
    _INFERENCE + "Attach": Role.INFERENCE,
    _INFERENCE + "GetRequest": Role.INFERENCE,
    _INFERENCE + "ListRequests": Role.INFERENCE,
    _INFERENCE + "CancelRequest": Role.INFERENCE,
    _ACCESS + "CreateAccessToken": Role.OPERATOR,
    _ACCESS + "ListAccessTokens": Role.OPERATOR,
    _ACCESS + "DeleteAccessToken": Role.OPERATOR,
    _ACCESS + "CreateJoinToken": Role.OPERATOR,
    _ACCESS + "RevokeNode": Role.OPERATOR,
    _ACCESS + "GetCaller": Role.VIEWER,
    _FLEET + "WatchRoutes": Role.OPERATOR,  # it has the keys of engines
    _AGENT + "Join": Other.NODE,
    _AGENT + "SendLogs": Other.NODE,
    _ENROLLMENT + "GetAgentEndpoint": Other.EVERYBODY,
    _ENROLLMENT + "EnrollNode": Other.EVERYBODY,  # it is the join token that counts
    _ENROLLMENT + "RenewNodeCertificate": Other.NODE,
    # They tell what everybody can read in the published contract, and whether there is service at all.
    _HEALTH + "Check": Other.EVERYBODY,
    _HEALTH + "List": Other.EVERYBODY,
    _HEALTH + "Watch": Other.EVERYBODY,
    _REFLECTION + "ServerReflectionInfo": Other.EVERYBODY,
}
