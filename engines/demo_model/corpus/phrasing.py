"""Says the same prompt in the many ways in which people type it."""

from random import Random

_OPENINGS = ("Please", "Can you help me?", "Hi!", "Hello,", "Hey,", "Quick question:", "I have a question.", "Tell me,")
_CLOSINGS = (" Please.", " Thanks!", " Thank you.")


def vary(random: Random, prompt: str) -> str:
    """Returns the prompt as it is, or with politeness, without capitals or without its last sign.

    Only for prompts whose answer does not repeat their capitals or their end.
    """
    if random.random() < 0.5:
        return prompt
    if random.random() < 0.25:
        prompt = f"{random.choice(_OPENINGS)} {_uncapitalised(prompt)}"
    elif random.random() < 0.15:
        prompt = prompt + random.choice(_CLOSINGS)
    if random.random() < 0.4:
        prompt = prompt.lower()
    if random.random() < 0.35:
        prompt = prompt.rstrip(".?! ")
    if random.random() < 0.04:
        prompt = prompt.upper()
    return prompt


def _uncapitalised(prompt: str) -> str:
    return prompt[0].lower() + prompt[1:]
