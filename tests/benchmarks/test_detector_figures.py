"""What the detectors find of generated sentences."""

from benchmarks.detector_texts import Sentence, sentences
from benchmarks.detectors import alarms, scored, table


def test_the_sentences_are_the_same_for_a_seed_and_hold_their_values() -> None:
    """Values stand where they are said to; half of the sentences have none."""
    made = sentences(seed=3, of_each=4)

    assert made == sentences(seed=3, of_each=4) != sentences(seed=4, of_each=4)
    assert sum(one.kind is None for one in made) == len(made) / 2
    assert all(0 <= one.start < one.end <= len(one.text) for one in made if one.kind)


def test_nearly_all_is_found_and_hardly_anything_else() -> None:
    """In both languages; the figures proper come from more sentences."""
    figures = scored(sentences(seed=3, of_each=20))

    for kind, by_language in figures["kinds"].items():
        for language, one in by_language.items():
            assert one["recall"] >= 0.9, (kind, language)
            assert one["precision"] >= 0.9, (kind, language)


def test_a_find_counts_where_it_covers_the_value() -> None:
    """Of the right kind, and whole; anything else is false."""
    whole = Sentence(language="en", text="bob@x.com", kind="email", start=0, end=9)
    longer = Sentence(language="en", text="bob@x.com or so", kind="email", start=0, end=15)
    none = Sentence(language="en", text="10.1.2.3")

    figures = scored([whole, longer, none])

    assert figures["kinds"]["email"]["en"] == {
        "made": 2,
        "found": 1,
        "false": 1,
        "recall": 0.5,
        "precision": 0.5,
    }
    assert figures["kinds"]["host"]["en"]["false"] == figures["false_alarms_without"] == 1
    assert "| email | 50.0 % of 2 | 50.0 % | - of 0 | - |" in table(figures)


def test_lines_with_a_find_are_alarms() -> None:
    """By kind."""
    figures = alarms(["bob@x.com and 10.1.2.3", "nothing"])

    assert figures["share_without_alarm"] == 0.5
    assert figures["by_kind"] == {"email": 1, "host": 1}
