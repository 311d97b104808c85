"""Compiles a form in a process of its own: `python -m engines.text.trial`.

A small text can make llguidance (1.9) overflow its stack or take minutes: some thousand rules in a chain, some hundred
patterns in an `allOf`. Here that ends a process that does nothing else.

Reads one object of JSON: form and texts, as `Grammars.compile` takes them, and special_tokens, which they may name.
Writes one: grammar, as llguidance takes it, or error, which says what is wrong with the form.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import llguidance

from engines.text.endless import endless, hollow
from engines.text.matching import NOTHING, words

Form = Literal["json_schema", "json_object", "regex", "choice", "ebnf"]

CPU_S = 5
MEMORY_BYTES = 1 << 30
_MOST_KEPT_BYTES = 48 << 20  # of one form that is compiled: engines keep some of them
STACK_BYTES = 1 << 20  # less than any thread has that compiles the same grammar afterwards
_MAX_STATES = 1 << 14  # of what reads tokens, for each output; they take some 20 MB, and a few hundred are usual
_BLANKS = r"[\x20\x0A\x0D\x09]{1,64}"  # between the parts of JSON, where a model that is lost would write them forever
_END = 256


class Bytes:
    """A tokenizer that has an id for each byte, one for the end, and special tokens."""

    is_tokenizer_wrapper = True
    eos_token_id = _END
    bos_token_id = None

    def __init__(self, special_tokens: Sequence[str]) -> None:
        special = ["</s>", *special_tokens]
        self.tokens = [*(bytes([each]) for each in range(_END)), *(each.encode() for each in special)]
        self.special_token_ids = list(range(_END, len(self.tokens)))

    def __call__(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        return list(text.encode())


def opened(tokenizer: llguidance.LLTokenizer, grammar: str) -> llguidance.LLMatcher:
    """Returns a matcher that knows already what may come first. Raises ValueError."""
    limits = llguidance.LLParserLimits(max_lexer_states=_MAX_STATES, verbose_errors=False)
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if error := words(matcher.get_error()):
        raise ValueError("it allows no text at all" if error == NOTHING else error)
    return matcher


def tried(form: Form, texts: Sequence[str], special_tokens: Sequence[str]) -> str:
    """Returns the form as llguidance takes it. Raises ValueError if it does not compile or may never end."""
    wrapper: Any = Bytes(special_tokens)
    tokenizer = llguidance.LLTokenizer(wrapper)
    before = _peak_bytes()
    grammar = _grammar_of(form, texts)
    opened(tokenizer, grammar)
    if _peak_bytes() - before > _MOST_KEPT_BYTES:
        raise ValueError("it takes too much memory: make it simpler")
    shell = hollow(grammar) if form == "ebnf" else None
    if shell is not None:
        matcher = llguidance.LLMatcher(tokenizer, shell, log_level=0)
        if not matcher.is_error() and not matcher.is_accepting():
            raise ValueError("it has a rule that never ends")
    return grammar


def _peak_bytes() -> int:
    # Not `getrusage`: its peak is that of the process which started this one, if that was larger.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _grammar_of(form: Form, texts: Sequence[str]) -> str:
    [first, *_] = texts
    if form == "regex":
        return llguidance.LLMatcher.grammar_from_regex(first)
    if form == "choice":
        return llguidance.LLMatcher.grammar_from_regex("|".join(map(_escaped, texts)))
    if form == "ebnf":
        return llguidance.grammar_from("ebnf", first)
    schema: Any = json.loads(first)
    if name := endless(schema):
        raise ValueError(f"what {name} describes never ends")
    return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults={"whitespace_pattern": _BLANKS})


def _escaped(text: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)


def _answer(asked: Any) -> None:
    try:
        answer = {"grammar": tried(asked["form"], asked["texts"], asked["special_tokens"])}
    except (ValueError, RecursionError) as error:
        answer = {"error": str(error)}
    except Exception as error:
        if type(error) is not Exception:  # what llguidance raises for a GBNF grammar that it cannot read
            raise
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


def main() -> None:
    """Answers what is asked on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_answer, args=(json.load(sys.stdin),))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
