"""Scores a demo model on questions it has not seen: `python -m engines.demo_model.evaluate`.

Greedy, in float32, through transformers, so that the scores say what every engine should reproduce.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from engines.demo_model import MODEL_DIR
from engines.demo_model.exam import Question, length_questions, task_questions
from engines.demo_model.rendering import THINK_END, TURN_END, prompt_segments

_BATCH = 50
_LENGTHS = (128, 256, 512, 1024, 1536, 1900)  # the last leaves room for an answer within 2,048
_MOST_NEW_TOKENS = 140  # the longest story that thinks first takes about 130


def main() -> None:
    """Parses the command line, scores a model and writes what it scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="model directory to score")
    parser.add_argument("--out", type=Path, help="JSON file to write; default MODEL/scores.json")
    parser.add_argument("--seed", type=int, default=1_000_003)
    parser.add_argument("--questions", type=int, default=50, help="questions per task and mode")
    parser.add_argument("--length-questions", type=int, default=20, help="questions per length and kind")
    arguments = parser.parse_args()
    scores = Examiner(arguments.model).scores(arguments.seed, arguments.questions, arguments.length_questions)
    path = arguments.out or arguments.model / "scores.json"
    path.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


class Examiner:
    """A model that answers the questions of the exam."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, padding_side="left")
        # Any, because transformers gives `generate` a type that no model of its own fits.
        self._model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)

    def scores(self, seed: int, count: int, length_count: int) -> dict[str, object]:
        """Returns the fraction of right answers by task and mode, and by length of the prompt."""
        direct, direct_stops = self._score(task_questions(Random(seed), count, is_thinking=False))
        thinking, thinking_stops = self._score(task_questions(Random(seed), count, is_thinking=True))
        return {
            "seed": seed,
            "questions_per_task": count,
            "parameters": self._model.num_parameters(),
            "right": {task: {"direct": direct[task], "thinking": thinking[task]} for task in direct},
            "stopped_by_itself": {"direct": direct_stops, "thinking": thinking_stops},
            "questions_per_length": length_count,
            "right_by_prompt_tokens": {
                str(length): self._score_length(seed, length, length_count) for length in _LENGTHS
            },
        }

    def answers(self, questions: Sequence[Question]) -> list[tuple[str, bool]]:
        """Returns the answer to each question without its thought, and whether it ended by itself."""
        prompts = ["".join(s.text for s in prompt_segments(question.conversation)) for question in questions]
        batch = self._tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            output = self._model.generate(**batch, max_new_tokens=_MOST_NEW_TOKENS, do_sample=False)
        texts = self._tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :])
        ended = [text.partition(TURN_END) for text in texts]
        return [(text.rpartition(f"{THINK_END}\n\n")[2], bool(end)) for text, end, _ in ended]

    def _score(self, questions: Iterable[Question]) -> tuple[dict[str, float], float]:
        waiting, right, stops = list(questions), defaultdict[str, list[bool]](list), []
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            for question, (answer, has_ended) in zip(batch, self.answers(batch), strict=True):
                right[question.topic].append(has_ended and question.accepts(answer))
                stops.append(has_ended)
        return {topic: _mean(outcomes) for topic, outcomes in right.items()}, _mean(stops)

    def _score_length(self, seed: int, length: int, count: int) -> dict[str, float]:
        backend = self._tokenizer.backend_tokenizer
        return self._score(length_questions(Random(seed), backend, length, count))[0]


def _mean(outcomes: Sequence[bool]) -> float:
    return round(sum(outcomes) / len(outcomes), 3)


if __name__ == "__main__":
    main()
