import pytest
import torch
from PIL import Image

from m2ib_lite.attribution import Attribution
from m2ib_lite.models.clip import letters
from m2ib_lite.words import join_scores, whole_words


@pytest.mark.parametrize(
    ("caption", "tokens", "words", "places"),
    [
        ("an owl-light,", ["an", "owl", "-", "light", ","], ["an", "owl", "-", "light", ","], [0, 1, 2, 3, 4]),
        ("two viol\u00eans", ["two", "viol", "\u00eans"], ["two", "viol\u00eans"], [0, 1, 1]),
        ("owl owl", ["o", "wl", "owl"], ["owl", "owl"], [0, 0, 1]),
        ("\U0001f989\U0001f989 x", ["\U0001f989", "", "\U0001f989", "", "x"], ["\U0001f989", "\U0001f989", "x"], [0, 0, 1, 1, 2]),
        ("a cat", ["", "a", " ", "c", "at"], ["a", "cat"], [0, 0, 1, 1, 1]),  # a space as a token of its own
        ("a cat", ["a", " "], ["a"], [0, 0]),  # cut off
        ("it's an x-ray", ["it's", "an", "x-ray"], ["it's", "an", "x-ray"], [0, 1, 2]),  # SigLIP's tokens span punctuation
        ("x-rays, two", ["x-r", "ays", "two"], ["x-rays", "two"], [0, 0, 1]),
        ("semi-dry", ["se", "mi-d", "ry"], ["semi-dry"], [0, 0, 0]),
        ("'twas", ["'tw", "as"], ["'twas"], [0, 0]),
        ("$$", [""], ["$$"], [0]),
        ("ab\u00a0cd", ["ab", "\u00a0", "", "cd"], ["ab", "cd"], [0, 1, 1, 1]),  # a space of two tokens
    ],
)
def test_pieces_are_joined_to_the_words_they_come_from(caption, tokens, words, places):
    assert whole_words(caption, tokens) == (words, places)


def test_each_letter_is_one_tokens():
    assert letters("an \U0001f989", [(0, 2), (2, 4), (3, 4)]) == ["an", "\U0001f989", ""]
    assert letters(" x", [(0, 1), (1, 2)]) == [" ", "x"]
    assert letters("x", []) == []


def test_information_adds_up_and_levels_do_not():
    places, scores = [0, 1, 1, 1, 2], torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert join_scores(places, scores).tolist() == [1, 9, 5]
    assert join_scores(places, scores, mean=True).tolist() == [1, 3, 5]
    image, caption, tokens = Image.new("RGB", (4, 4)), "an owlet, yes", ["an", "o", "wl", "et", "yes"]
    for method, expected in (("M2IB", [1, 9, 5]), ("NIB", [1, 9, 5]), ("RISE", [1, 3, 5]), ("Random", [1, 3, 5])):
        words, found = Attribution(None, [scores], [tokens], [image], [caption], [(0, 0, 4, 4)], method).words(0)
        assert words == ["an", "owlet", "yes"]
        assert found.tolist() == expected
