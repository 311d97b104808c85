"""The Python SDK: `Client` for asyncio, `SyncClient` for everybody else.

What goes in and comes out are the messages of the contract, `roundhouse.v1`: a second set of types would have to be
learnt, converted and kept in step, and would hide fields that a newer server sends. What fails raises an error of
`roundhouse.kit.errors`, with its reason and details.
"""

from roundhouse.client.client import Client
from roundhouse.client.connection import NotConnected
from roundhouse.client.generation import Generation
from roundhouse.client.requests import Failover, GenerationOptions, Messages, Prompt
from roundhouse.client.specify import deployment
from roundhouse.client.stream import Watch
from roundhouse.client.sync import SyncClient, SyncGeneration, SyncWatch
from roundhouse.client.told import OutOfOrder, TokensDiffer
from roundhouse.client.wait import EngineFailed, Progress, RolledBack

__all__ = [
    "Client",
    "EngineFailed",
    "Failover",
    "Generation",
    "GenerationOptions",
    "Messages",
    "NotConnected",
    "OutOfOrder",
    "Progress",
    "Prompt",
    "RolledBack",
    "SyncClient",
    "SyncGeneration",
    "SyncWatch",
    "TokensDiffer",
    "Watch",
    "deployment",
]
