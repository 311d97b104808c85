"""What the corpus is made of: turns, and conversations of turns."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: what the user asks, how the model reasons, what it answers."""

    prompt: str
    thought: str
    answer: str
    # What every right answer holds, where many are right; None where only `answer` is.
    must_hold: tuple[str, ...] | None = None

    def accepts(self, answer: str) -> bool:
        """Says whether an answer is right."""
        if self.must_hold is None:
            return answer == self.answer
        return all(part in answer for part in self.must_hold)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A few turns under an optional system message; only the last turn is thought about."""

    task: str
    turns: tuple[Turn, ...]
    is_thinking: bool
    system: str | None = None

    def messages(self) -> list[dict[str, str]]:
        """Returns all but the last answer, as a chat client would send it."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for turn in self.turns[:-1]:
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": turn.answer})
        messages.append({"role": "user", "content": self.turns[-1].prompt})
        return messages

    def completion(self) -> str:
        """Returns what the model writes after the generation prompt, without the end token."""
        last = self.turns[-1]
        return f"<think>\n{last.thought}\n</think>\n\n{last.answer}" if self.is_thinking else last.answer


MakeTurn = Callable[[Random], Turn]
