"""The tokenizer of a model directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from engines.text.decode import Decoder
from engines.text.dividers import Breaker, dividers, seam_for
from engines.text.generation_config import end_ids
from engines.text.transcript import Transcript
from roundhouse.kit.errors import InvalidArgument, NotReady, NotServed
from roundhouse.kit.fields import invalid
from roundhouse.v1 import errors_pb2


def load_tokenizer(
    directory: Path, template_variables: Mapping[str, object] | None = None, chat_template: str = ""
) -> Tokenizer:
    """Returns the tokenizer of a model directory; raises InvalidArgument (MODEL_BROKEN) or NotServed.

    template_variables: what its chat template is told besides the messages. chat_template: in place of its own, if any.
    """
    try:
        loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = errors_pb2.ERROR_REASON_MODEL_BROKEN
        text = f'the tokenizer in "{directory}" cannot be loaded ({_first_line(error)}): repair the model directory'
        raise InvalidArgument(text, reason=reason) from error
    if not loaded.is_fast:
        raise NotServed(f'the tokenizer in "{directory}" has no tokenizer.json: convert it to the fast format')
    if chat_template:
        loaded.chat_template = chat_template
    return Tokenizer(loaded, end_ids(directory), template_variables or {})


class Tokenizer:
    """Encodes, decodes, and writes conversations out. May be used from several threads at a time."""

    def __init__(self, loaded: Any, end_ids: frozenset[int], template_variables: Mapping[str, object]) -> None:
        self._loaded = loaded
        self._template_variables = dict(template_variables)
        # Used directly: the methods of transformers set truncation and padding on it at each call, and that fails while
        # another thread decodes.
        self._backend: Backend = loaded.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        added = self._backend.get_added_tokens_decoder()
        special = {token: str(description.content) for token, description in added.items() if description.special}
        self._special_ids = frozenset(special)
        self.special_tokens = tuple(special.values())
        self.end_ids = end_ids
        self._template = _text_of(loaded.chat_template)
        self.has_chat_template = bool(self._template)
        self._breaker = Breaker(dividers(added, end_ids, self._template))
        self._anchor = self._anchor_of(added)
        self.size = self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def definition(self) -> str:
        """The whole of it, as in a tokenizer.json."""
        return self._backend.to_str()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Returns the ids of a text. Other threads go on meanwhile."""
        # `encode` holds the interpreter's lock until it is done, seconds for a megabyte; a batch gives it back.
        [encoding] = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return encoding.ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, without special tokens."""
        return self._backend.decode(ids, skip_special_tokens=True)

    def spellings(self, word: str) -> list[tuple[int, ...]]:
        """Returns the ids of a word as it may stand in a text: at its beginning, behind a space, and behind letters."""
        texts = (word, f" {word}", self._anchor + word)
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        skipped = 1 if self._anchor else 0
        spelled = [encodings[0].ids, encodings[1].ids, encodings[2].ids[skipped:]]
        return list(dict.fromkeys(tuple(ids) for ids in spelled if ids))

    def transcript(self, stops: tuple[str, ...]) -> Transcript:
        """Opens the text of one output, which ends at the first of the stop texts."""
        return Transcript(Decoder(self.decode, self._special_ids), stops)

    def render_chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Returns the prompt for the assistant's next turn, from (role, text) of each message.

        A text is text: what spells a token that divides conversations (`dividers` says which) becomes other tokens of
        the same letters, so no text ends its message or begins another. That holds as far as the template writes texts
        as they are; one that cuts a piece out of the middle of a text may join the ends to such a token.
        Raises NotReady if the model has no chat template, and InvalidArgument if the template refuses the messages.
        """
        if not self.has_chat_template:
            reason = errors_pb2.ERROR_REASON_CHAT_TEMPLATE_MISSING
            raise NotReady("the model has no chat template: use Generate with a prompt", reason=reason)
        seam = seam_for([self._template, *(text for _, text in messages)])
        conversation = [{"role": role, "content": self._breaker.broken(text, seam)} for role, text in messages]
        try:
            text = self._loaded.apply_chat_template(
                conversation, add_generation_prompt=True, tokenize=False, **self._template_variables
            )
        except TemplateError as error:
            raise invalid("messages", f"the model's chat template refuses them: {_first_line(error)}") from error
        return self._encode_pieces(text.split(seam))

    def _encode_pieces(self, pieces: Sequence[str]) -> list[int]:
        """Returns the ids of a text in pieces. No token reaches over an end of a piece."""
        first, *others = pieces
        # Behind a token most tokenizers leave out the space that they put before a text.
        texts = [first, *(self._anchor + piece for piece in others)]
        # The template writes the special tokens of a text itself.
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        skipped = 1 if self._anchor else 0
        return [*encodings[0].ids, *(token for each in encodings[1:] for token in each.ids[skipped:])]

    def _anchor_of(self, added: Mapping[int, AddedToken]) -> str:
        """Returns the text of an added token that is found before any text and takes nothing of it; else nothing."""
        for number, token in added.items():
            if not token.rstrip and self.encode(f"{token.content}a", add_special_tokens=False)[:1] == [number]:
                return str(token.content)
        return ""


def _text_of(template: str | Mapping[str, str] | None) -> str:
    return "".join(template.values()) if isinstance(template, Mapping) else template or ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
