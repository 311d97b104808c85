"""Makes outputs have a form: JSON, a regular expression, one of some texts, or a grammar. The door to llguidance."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

import llguidance

from engines.model import Constraint
from engines.text.matching import Matching, Vocabulary, words
from engines.text.tokenizer import Tokenizer
from engines.text.trial import Form, opened
from roundhouse.kit.errors import NotServed

MAX_CHARACTERS = 1 << 16  # of a form
MOST_KEPT = 32  # forms that are compiled already; each takes up to some 10 MB
TRIAL_S = 20.0  # the trial itself takes a few seconds of a processor at most


class Grammars:
    """Compiles forms for one model. Called from several threads at a time."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int) -> None:
        """vocabulary_size: ids of the model, which may have fewer than the tokenizer, or more.

        Takes up to a second, and lets no other thread go on meanwhile: not to be done by an engine that serves already.
        Raises NotServed if llguidance cannot read this tokenizer.
        """
        self._special = tokenizer.special_tokens
        known = [each for each in sorted(tokenizer.end_ids) if each < tokenizer.size] or None
        size = max(vocabulary_size, tokenizer.size)
        try:
            backend = llguidance.LLTokenizer(tokenizer.definition, n_vocab=size, eos_token=known)
        except ValueError as error:
            what = f"llguidance cannot read the tokenizer ({words(error)})"
            raise NotServed(f"{what}: outputs of this model can be given no form") from error
        self._vocabulary = Vocabulary(backend, vocabulary_size)
        self._kept: OrderedDict[tuple[Form, tuple[str, ...]], llguidance.LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def kept(self, form: Form, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint] | None:
        """Returns at once what `compile` would, if it has compiled this form lately; else None."""
        ends = self._vocabulary.ends(end_ids)
        matcher = self._known(form, tuple(texts)) if ends else None
        return None if matcher is None else self._outputs_of(matcher, ends)

    def compile(self, form: Form, texts: Sequence[str], end_ids: Collection[int]) -> Callable[[], Constraint]:
        """Returns what makes a constraint for one output after the other.

        texts: one, but for a choice. A `json_schema` is kept to the order of its properties; `json_object` takes a
        schema too, for any object `{"type": "object"}`. A `regex` matches from end to end, in the syntax of Rust's
        crate of that name. An `ebnf` is a Lark grammar as llguidance has them, from the rule `start`, or one in GBNF,
        as llama.cpp has them, from the rule `root`.
        end_ids: what ends these outputs. One that has text ends them where the form has that text, any other where the
        form is complete.
        Raises ValueError, which says what is wrong with the form: it is too large, does not compile in time, allows
        nothing, or never ends.
        """
        ends = self._vocabulary.ends(end_ids)
        if not ends:
            raise ValueError("nothing could end the output: allow the model's end tokens, or name one without text")
        return self._outputs_of(self._compiled(form, tuple(texts)), ends)

    def _outputs_of(self, matcher: llguidance.LLMatcher, ends: frozenset[int]) -> Callable[[], Constraint]:
        return lambda: Matching(self._vocabulary, matcher.deep_copy(), ends)

    def _known(self, form: Form, texts: tuple[str, ...]) -> llguidance.LLMatcher | None:
        with self._lock:
            matcher = self._kept.get((form, texts))
            if matcher is not None:
                self._kept.move_to_end((form, texts))
            return matcher

    def _compiled(self, form: Form, texts: tuple[str, ...]) -> llguidance.LLMatcher:
        size = sum(map(len, texts))
        if size > MAX_CHARACTERS:
            raise ValueError(f"{size} characters are too many: use at most {MAX_CHARACTERS}")
        if (known := self._known(form, texts)) is not None:  # it may have been compiled since it was asked for
            return known
        matcher = opened(self._vocabulary.tokenizer, _tried(form, texts, self._special))
        with self._lock:
            self._kept[form, texts] = matcher
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return matcher


def _tried(form: Form, texts: Sequence[str], special_tokens: Sequence[str]) -> str:
    """Returns the form as llguidance takes it, once another process has compiled it in time. Raises ValueError."""
    asked = json.dumps({"form": form, "texts": texts, "special_tokens": special_tokens})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "engines.text.trial"],
            input=asked.encode(),
            capture_output=True,
            timeout=TRIAL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("it takes too long to compile: make it simpler") from error
    if done.returncode or not done.stdout:
        raise ValueError("it takes too long, or too much memory, to compile: make it simpler")
    answer: dict[str, str] = json.loads(done.stdout)
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["grammar"]
