"""Makes the demo model's tokenizer: byte-level BPE that never joins digits."""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from engines.demo_model.rendering import END_OF_TEXT, THINK_END, THINK_START, TURN_END, TURN_START

VOCABULARY = 2048


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learns merges from texts that hold none of the special tokens.

    The think tags are tokens of their own but not special, so that decoding with skip_special_tokens shows them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=20,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in (THINK_START, THINK_END)])
    return tokenizer
