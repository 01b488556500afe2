import numpy as np

from service.titles import TitleVectors


class Encoder:
    """Texts as vectors, and how many were encoded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts):
        self.texts += texts
        return np.array([[len(text)] * 128 for text in texts], np.float32)


def test_texts_are_encoded_once_until_others_were_asked_for_later():
    encoder = Encoder()
    titles = TitleVectors(encoder, most=2)
    for text in ("a", "bb", "a", "ccc", "a", "bb"):
        assert titles.of(text).tolist() == [len(text)] * 128
    assert encoder.texts == ["a", "bb", "ccc", "bb"]


def test_a_vector_stays_when_its_text_is_forgotten():
    titles = TitleVectors(Encoder(), most=1)
    first = titles.of("a")
    assert titles.of("bb")[0] == 2
    assert first[0] == 1
