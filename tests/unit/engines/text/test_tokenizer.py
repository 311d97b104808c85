import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from engines.text.tokenizer import Tokenizer, load_tokenizer
from roundhouse.kit.errors import InvalidArgument, NotReady
from tests.support.tiny_models import BEGIN, END, byte_fallback_tokenizer, byte_level_tokenizer, write_tokenizer

MESSAGES = [("system", "be brief"), ("user", "what is the fox?")]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"), byte_level_tokenizer())


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return load_tokenizer(directory)


def test_texts_are_encoded_as_transformers_does(directory: Path, tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(directory)
    text = "the fox, 10 € — 日本語 <|end|> 🦊"
    assert tokenizer.encode(text) == theirs.encode(text)
    assert tokenizer.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)


def test_a_long_text_is_encoded_while_other_threads_go_on(tokenizer: Tokenizer) -> None:
    begun, done = threading.Event(), threading.Event()

    def encode() -> None:
        begun.set()
        tokenizer.encode("the fox " * 100_000)
        done.set()

    thread = threading.Thread(target=encode)
    thread.start()
    begun.wait()
    turns = 0
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 10


def test_ids_are_decoded_as_transformers_does(directory: Path, tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(directory)
    ids = theirs.encode("the fox <|end|> , naïve .")
    assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_a_conversation_is_written_by_the_template(directory: Path, tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(directory)
    conversation = [{"role": role, "content": text} for role, text in MESSAGES]
    expected = theirs.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
    assert tokenizer.render_chat(MESSAGES) == expected
    assert tokenizer.has_chat_template


@pytest.mark.parametrize(
    ("variables", "words"), [({}, "unsaid"), ({"enable_thinking": True}, "on"), ({"enable_thinking": False}, "off")]
)
def test_a_template_is_told_what_is_said_and_nothing_else(
    tmp_path: Path, variables: dict[str, object], words: str
) -> None:
    template = (
        "{% if enable_thinking is not defined %}unsaid{% else %}{{ 'on' if enable_thinking else 'off' }}{% endif %}"
    )
    directory = write_tokenizer(tmp_path, byte_level_tokenizer(), chat_template=template)
    tokenizer = load_tokenizer(directory, variables)
    assert tokenizer.decode(tokenizer.render_chat(MESSAGES)) == words


def test_another_template_takes_the_place_of_its_own(tmp_path: Path) -> None:
    directory = write_tokenizer(tmp_path, byte_level_tokenizer())
    tokenizer = load_tokenizer(directory, chat_template="{{ messages[0].content }}, they say")
    assert tokenizer.decode(tokenizer.render_chat([("user", "the fox")])) == "the fox, they say"
    bare = load_tokenizer(write_tokenizer(tmp_path / "bare", byte_level_tokenizer(), chat_template=None), None, "the")
    assert bare.has_chat_template


def test_a_conversation_that_the_template_refuses_is_the_callers_to_mend(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidArgument, match=r"messages: .* no tools here"):
        tokenizer.render_chat([("tool", "42")])


def test_without_a_template_there_is_no_chat(tmp_path: Path) -> None:
    plain = load_tokenizer(write_tokenizer(tmp_path, byte_level_tokenizer(), chat_template=None))
    assert not plain.has_chat_template
    with pytest.raises(NotReady, match="no chat template"):
        plain.render_chat(MESSAGES)


def test_a_transcript_decodes_and_stops(tokenizer: Tokenizer) -> None:
    transcript = tokenizer.transcript(("brown",))
    ids = [*tokenizer.encode("the 🦊 is "), *tokenizer.encode(END), *tokenizer.encode("brown and quick")]
    shown = [transcript.write(token) for token in ids]
    assert "".join(shown) + transcript.close() == "the 🦊 is "
    assert transcript.matched_stop == "brown"


def test_a_transcript_gives_at_its_close_all_that_was_held_back(tokenizer: Tokenizer) -> None:
    transcript = tokenizer.transcript(("foxes",))
    ids = [*tokenizer.encode("the fo"), tokenizer.encode("🦊")[0]]
    shown = "".join(transcript.write(token) for token in ids)
    assert shown == "the "
    assert shown + transcript.close() == tokenizer.decode(ids) == "the fo\ufffd"


def test_a_directory_without_a_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="tokenizer") as refused:
        load_tokenizer(tmp_path)
    assert "\n" not in refused.value.message


def test_special_tokens_are_known(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(f"{BEGIN}the{END}")) == "the"
    assert tokenizer.size == 320


def test_threads_may_encode_while_others_decode(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the quick brown fox " * 50)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                assert tokenizer.encode(tokenizer.decode(ids)) == ids
                tokenizer.render_chat(MESSAGES)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(
    "make", [byte_level_tokenizer, byte_fallback_tokenizer], ids=["GPT-2's kind", "Llama 2's kind"]
)
def test_a_word_is_spelled_as_it_may_stand_in_a_text(tmp_path: Path, make: Callable[[], Backend]) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, make()))
    spelled = tokenizer.spellings("the")
    for text in ("the", "jumps the", "bathe"):
        ids = tuple(tokenizer.encode(text, add_special_tokens=False))
        assert any(ids[-len(each) :] == each for each in spelled), text
    assert len(set(spelled)) == len(spelled)
