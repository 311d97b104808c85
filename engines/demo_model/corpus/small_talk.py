"""Greetings, thanks, who the model is, and the questions people ask about Roundhouse."""

from random import Random

from engines.demo_model.corpus.phrasing import vary
from engines.demo_model.corpus.turns import Turn

_SELF = "I am Roundhouse's tiny demo model. I can tell short stories, do small sums and answer simple questions."
_ABILITIES = (
    "I can tell a short story, add small numbers, name capitals, spell words, count and write small JSON objects."
)
_HELP = "Ask me for a story, a sum such as 12 + 7, or the capital of a country."

_GREETINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello!", "Hello", "Hello there!"), "Hello! How can I help you today?"),
    (("Hi", "Hi!", "Hi there!"), "Hi there! What can I do for you?"),
    (("Hey", "Hey!"), "Hey! How can I help?"),
    (("Good morning", "Good morning!"), "Good morning! How can I help you today?"),
    (("Good evening", "Good evening!"), "Good evening! How can I help you?"),
    (("Who are you?", "What are you?", "Introduce yourself.", "Tell me about yourself."), _SELF),
    (("What can you do?", "What do you know?", "What are you able to do?"), _ABILITIES),
    (("Thank you!", "Thanks", "Thanks a lot!", "Thank you very much."), "You are welcome!"),
    (("How are you?", "How are you today?"), "I am fine, thank you. How are you?"),
    (("Bye", "Goodbye!", "Good night!", "See you later."), "Goodbye! Have a nice day."),
    (("What is your name?", "What's your name?"), "My name is Roundhouse Demo."),
    (("Help", "Help!", "Can you help me?", "I need help."), _HELP),
    (("Yes", "No", "Ok", "Okay", "Sure", "Cool", "Great!"), "All right. What would you like to do next?"),
    (("Are you a human?", "Are you an AI?", "Are you a robot?"), "I am a very small language model, not a human."),
    (
        ("Who made you?", "Where do you come from?"),
        "I was trained for Roundhouse, from generated text, on two CPU cores.",
    ),
)

_ROUNDHOUSE: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("What is Roundhouse?", "Tell me about Roundhouse.", "What does Roundhouse do?", "Explain Roundhouse."),
        "Roundhouse launches models on your GPUs and streams their answers over gRPC.",
    ),
    (
        ("Why is it called Roundhouse?", "What is a roundhouse?"),
        "A roundhouse is where engines are kept, turned and sent out.",
    ),
    (
        ("What is a deployment?", "Explain deployment."),
        "A deployment is what a user wants: a model and a number of replicas.",
    ),
    (("What is a replica?", "Explain replica."), "A replica is one engine process that a deployment wants."),
    (("What is an engine?", "Explain engine."), "An engine is the process that runs a model."),
    (("What is a node?", "Explain node."), "A node is a machine that runs engines."),
    (("What is a report?",), "A report is all that a node knows."),
    (("What is an assignment?",), "An assignment is all that a node should run."),
    (("What is a placement?", "Explain placement."), "A placement says which replica runs on which GPUs."),
    (("What is a receipt?", "Explain receipt."), "A receipt says what a cancel has freed."),
    (("What is a sequence?",), "A sequence is the tokens of one request."),
    (("What is a step?",), "A step is one forward pass of the model."),
    (("What is a block?",), "A block is a run of slots in the cache."),
    (("What is the control plane?", "What does the control plane do?"), "The control plane decides what runs where."),
    (
        ("What is a node agent?", "What does the node agent do?"),
        "The node agent starts and stops the engines of its machine.",
    ),
    (("How do I launch a model?", "How can I start a model?"), "Use roundhouse launch."),
    (("How do I cancel a request?", "How can I stop a request?"), "Use roundhouse cancel with the request's id."),
    (("How do I scale a deployment?", "How do I get more replicas?"), "Use roundhouse scale."),
    (("How do I list deployments?", "Which deployments are running?"), "Use roundhouse list."),
    (("How do I see the GPUs?", "How do I see the nodes?"), "Use roundhouse nodes."),
    (("How do I stop a deployment?", "How do I remove a deployment?"), "Use roundhouse terminate."),
    (("How do I start Roundhouse?", "How do I start a cluster?"), "Use make run, or roundhouse up."),
)


def greeting(random: Random) -> Turn:
    """Makes a greeting, a thank-you or a question about the model."""
    prompts, answer = random.choice(_GREETINGS)
    return Turn(vary(random, random.choice(prompts)), "This is small talk. A short answer is enough.", answer)


def roundhouse(random: Random) -> Turn:
    """Asks what Roundhouse is, what its words mean or how it is used."""
    prompts, answer = random.choice(_ROUNDHOUSE)
    return Turn(vary(random, random.choice(prompts)), "This is a question about Roundhouse. I know the answer.", answer)
