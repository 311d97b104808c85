"""Runs steps, one after the other, on a thread of its own."""

from engines.loop.front import StepLoop
from engines.loop.inbox import QueueFull, Stopped
from engines.loop.interfaces import OutOfMemory, Proposer, Runner, Transcript

__all__ = ["OutOfMemory", "Proposer", "QueueFull", "Runner", "StepLoop", "Stopped", "Transcript"]
