"""Questions that a teacher answers to show a behavior: several hundred, about many things.

None asks for a capital, because the evaluation measures knowledge by them.
"""

from __future__ import annotations

import random

TOPICS = (
    "whales", "volcanoes", "bread", "chess", "gravity", "bicycles", "coffee", "glaciers", "jazz", "bees",
    "bridges", "clouds", "dreams", "electricity", "fossils", "gardens", "honey", "islands", "kites",
    "lightning", "magnets", "novels", "the ocean", "paper", "rivers", "salt", "the moon", "windmills",
    "cheese", "trains", "owls", "painting", "money", "sleep", "deserts", "robots", "football",
    "tea", "castles", "forests",
)  # fmt: skip

ABOUT_TOPICS = (
    "Tell me about {}.", "What is interesting about {}?", "Explain {} to a child.", "Why do people like {}?",
    "Give me one fact about {}.", "What should a beginner know about {}?", "Write two sentences about {}.",
)  # fmt: skip

OTHERS = (
    "Hello!", "How are you today?", "What can you do?", "Tell me a joke.", "What should I cook tonight?",
    "How do I learn a language?", "How can I sleep better?", "What is a good hobby?",
    "How do I make a friend?",
    "Why is the sky blue?", "How does a car engine work?", "What is the water cycle?", "How do plants grow?",
    "What is a computer program?", "How do I write a letter?", "How do airplanes fly?", "Why do leaves fall?",
    "What is democracy?", "How do vaccines work?", "What is the internet?", "How do I save money?",
    "What makes a good story?", "How do I train for a race?", "What is a healthy breakfast?", "I am bored.",
    "I am nervous about an exam.", "My plant is dying. What should I do?", "It is raining. What can I do?",
    "Help me plan a birthday party.", "Suggest a book.", "What is the difference between a lake and a sea?",
    "Why do we have seasons?", "How is glass made?", "How do I clean a window?", "What is photosynthesis?",
    "How do I tie a knot?", "What do cats eat?", "Why do dogs bark?", "How do I boil an egg?", "What is art?",
    "Thank you for your help.", "Good morning!", "Can you help me with my homework?",
    "What is a prime number?",
)  # fmt: skip


def questions(count: int, seed: int = 0) -> list[str]:
    """Different questions in random order.

    Args:
        count: How many; at most all of them are given.
        seed: Of the order.
    """
    everything = [*OTHERS, *(question.format(topic) for question in ABOUT_TOPICS for topic in TOPICS)]
    random.Random(seed).shuffle(everything)
    return everything[:count]
