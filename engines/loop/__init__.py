"""Runs steps, one after the other, on a thread of its own."""

from engines.loop.inbox import QueueFull, Stopped
from engines.loop.interfaces import Runner, Transcript
from engines.loop.steps import StepLoop

__all__ = ["QueueFull", "Runner", "StepLoop", "Stopped", "Transcript"]
