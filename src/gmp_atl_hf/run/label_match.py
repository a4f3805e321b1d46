"""What the labels of somebody else's model mean in a corpus: the explicit map, and suggestions for one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from ..data.spelling import spelling
from ..errors import RequestError, did_you_mean, nearest

_SAME = (
    ("anger", "angry", "mad", "rage", "wrath"),
    ("boredom", "bored", "boring"),
    ("calm", "calmness", "relaxed"),
    ("contempt", "contemptuous", "scorn"),
    ("disgust", "disgusted"),
    ("excitement", "excited"),
    ("fear", "fearful", "afraid", "scared"),
    ("frustration", "frustrated"),
    ("happiness", "happy", "joy", "joyful"),
    ("neutral", "neutrality", "normal"),
    ("sadness", "sad", "sorrow"),
    ("surprise", "surprised", "ps", "pleasant surprise"),
)
"""Words for one emotion. Only suggested, never applied: whether a model means the same is for its user to say."""

_EXPECTED = "every label of the model with the emotion of the corpus that it means, or null where it means none"


@dataclass(frozen=True)
class LabelMatch:
    """What a model can say of a corpus.

    Args:
        meaning: Label of the model → emotion of the corpus, or None; in the order of its outputs.
        emotions: The emotions of the corpus, in order.
    """

    meaning: Mapping[str, str | None]
    emotions: Sequence[str]

    @property
    def told(self) -> list[str]:
        """Emotions of the corpus that a label means."""
        return [emotion for emotion in self.emotions if emotion in self.meaning.values()]

    @property
    def untold(self) -> list[str]:
        """Emotions of the corpus that no label means."""
        return [emotion for emotion in self.emotions if emotion not in self.meaning.values()]

    @property
    def strangers(self) -> dict[str, str]:
        """Labels that mean no emotion of the corpus → what they are called among the answers."""
        told = {*self.told}
        return {
            label: f"{label} (of the model)" if label in told else label
            for label, emotion in self.meaning.items()
            if emotion is None
        }

    @property
    def answers(self) -> list[str]:
        """All that the model can say: emotions of the corpus, then labels that mean none of them."""
        return [*self.told, *self.strangers.values()]

    def scores(self, logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Probabilities of the answers, (n, answers), from logits (n, labels); labels of one emotion add up."""
        answers, strangers = self.answers, self.strangers
        places = [answers.index(strangers[label] if to is None else to) for label, to in self.meaning.items()]
        shares: npt.NDArray[np.float64] = softmax(logits.astype(np.float64), axis=1) @ np.eye(len(answers))[places]
        return shares


def check_given(labels: Sequence[str], given: Mapping[str, Any], model: str) -> dict[str, str | None]:
    """Check a map from a model's labels as far as the model alone tells, before any corpus is read.

    Returns:
        The same with the labels as the model spells them.

    Raises:
        RequestError: It names a label that the model has not, or stands the wrong way round.
    """
    own = {spelling(label): label for label in labels}
    checked: dict[str, str | None] = {}
    for word, emotion in given.items():
        label = own.get(spelling(str(word)))
        if label is None:
            near = did_you_mean(word, labels)
            turned = isinstance(emotion, str) and spelling(emotion) in own
            other_way = f"turn it round, --labels {own[spelling(str(emotion))]}={word}" if turned else None
            raise RequestError(
                f"the label map names {str(word)!r}, which is no label of {model}",
                f"labels of the model to the left: {', '.join(labels)}; emotions of the corpus to the right",
                "; or ".join(filter(None, (other_way, near))) or f"take {word!r} out of the map",
            )
        if isinstance(emotion, bool) or not (emotion is None or isinstance(emotion, str | int)) or emotion == "":
            raise RequestError(f"the label map says {label}={emotion!r}", _EXPECTED, f"--labels {label}=null")
        checked[label] = None if emotion is None else str(emotion)
    return checked


def match_labels(
    labels: Sequence[str],
    names: Sequence[str],
    counts: Mapping[str, int],
    given: Mapping[str, str | None],
    model: str,
) -> LabelMatch:
    """Find what every label of a model means in a corpus.

    Labels and emotions of the same name, whatever its case, are one; everything else is said by `given` or refused.

    Args:
        labels: Of the model, in order.
        names: Emotions of the corpus, also those of which the tested part has no recording.
        counts: Emotion → its recordings in the tested part; none is 0.
        given: As `check_given` gave it.
        model: For messages.

    Raises:
        RequestError: A label has no meaning given, an emotion is none of the corpus, or no label means any.
    """
    own = {spelling(emotion): emotion for emotion in names}
    present = ", ".join(f"{emotion} ({count})" for emotion, count in counts.items())
    meaning: dict[str, str | None] = {}
    for label in labels:
        word = given.get(label, label)
        if word is not None and (label in given or spelling(word) in own):
            if spelling(word) not in own:
                raise RequestError(
                    f"the label map says {label}={word}, and the corpus has no {word}",
                    f"an emotion of the corpus: {present}",
                    did_you_mean(word, counts, f"--labels {label}=null, if it means none of them"),
                )
            meaning[label] = own[spelling(word)]
        elif label in given:
            meaning[label] = None
    if open_labels := [label for label in labels if label not in meaning]:
        raise _unclear(open_labels, labels, counts, meaning, model, present)
    if not any(meaning.values()):
        raise RequestError(
            f"no label of {model} means an emotion of the corpus: {', '.join(labels)}",
            f"at least one of {present}",
            "map one of them, or take another corpus",
        )
    return LabelMatch(meaning, [name for name in names if name in counts or name in meaning.values()])


def _unclear(
    open_labels: Sequence[str],
    labels: Sequence[str],
    counts: Mapping[str, int],
    meaning: Mapping[str, str | None],
    model: str,
    present: str,
) -> RequestError:
    """Say which labels have no meaning yet, and suggest the whole map."""
    suggested = {label: meaning[label] if label in meaning else suggest(label, counts) for label in labels}
    pairs = ",".join(f"{label}={emotion or 'null'}" for label, emotion in suggested.items())
    fix = f'--labels "{pairs}" (suggested by the words alone: look at the card of the model)'
    if not any(suggested.values()):
        fix += "; none of these words is like an emotion of the corpus, so its card has to say what they mean"
    untold = [f"{emotion} ({count})" for emotion, count in counts.items() if emotion not in suggested.values()]
    if untold:
        fix += f"; recordings of {', '.join(untold)} would then be left out and listed"
    return RequestError(
        f"{model} has the labels {', '.join(open_labels)}, which the corpus has not under the same name",
        f"{_EXPECTED}. The corpus has {present}",
        fix,
    )


def suggest(label: str, emotions: Iterable[str]) -> str | None:
    """The emotion of a corpus that a label most likely means; None if no word is like it.

    Example:
        >>> suggest("ang", ["anger", "happiness"]), suggest("Joyful", ["anger", "happiness"])
        ('anger', 'happiness')
    """
    word, words = spelling(label), {spelling(emotion): emotion for emotion in emotions}
    same = [group for group in _SAME if word in group]
    # An abbreviation counts where it begins words of one emotion only.
    begun = same or [group for group in _SAME if len(word) > 2 and any(one.startswith(word) for one in group)]
    if len(begun) == 1 and (found := next((words[one] for one in begun[0] if one in words), None)):
        return found
    longer = [emotion for key, emotion in words.items() if len(word) > 2 and key.startswith(word)]
    if same or longer:
        return longer[0] if len(longer) == 1 else None
    return nearest(label, words.values())
