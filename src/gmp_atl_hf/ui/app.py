"""A web page: a recording or the microphone in, scores and emotion over time out.

`gmp-atl ui MODEL` serves it on this machine. As `app.py` of a Space it is the same file: beside it lie the package,
which it therefore imports by its name, and `model_id.txt`, which names the model.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Nothing is reported to anyone; Gradio looks at this when it is imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from gmp_atl_hf.ui.timeline import Scored, timeline_svg

if TYPE_CHECKING:
    from gmp_atl_hf.inference.classifier import SpeechEmotionClassifier

# Recordings of people: in a folder of their own, which goes when this process ends.
_RECORDINGS = tempfile.TemporaryDirectory(prefix="gmp-atl-page-")
os.environ["GRADIO_TEMP_DIR"] = _RECORDINGS.name

MODEL_ID_FILE = "model_id.txt"
WINDOW_SECONDS = 3.0
WIDEST_SECONDS = 10.0
LARGEST_UPLOAD = "200mb"
KEPT_SECONDS = 600
"""Longest time that a recording is kept to be listened to again; another one in its place, and leaving, end it."""

_TITLE = "What does it sound like?"
_LIMITS = (
    "An emotion is not a fact about a person. The model says which of its labels a recording sounds most like, to "
    "people who labelled recordings like those it has learnt from; it always answers. Do not decide about anybody with "
    "it."
)
_NOTHING_YET = "<p style='opacity: 0.6'>A recording longer than one window has its emotions drawn over time here.</p>"
_CSS = """
.gradio-container {max-width: 1080px !important; margin: 0 auto !important}
#timeline {padding-top: 34px}
.limits {opacity: 0.75; font-size: 0.9em}
"""


def build_page(classifier: SpeechEmotionClassifier, name: str) -> gr.Blocks:
    """Lay out the page for a model and the name that people know it by."""
    kept: defaultdict[str | None, set[str]] = defaultdict(set)

    def keep_only(audio: str | None, session: str | None) -> None:
        """Remove what a visitor has given, but for one recording; equal files of two visitors are one."""
        left = kept.pop(session, set()) - {audio}
        if audio is not None:
            kept[session].add(audio)
        for file in left.difference(*kept.values()):
            Path(file).unlink(missing_ok=True)

    def listen(audio: str | None, window: float, request: gr.Request) -> tuple[dict[str, float] | None, str]:
        keep_only(audio, request.session_hash)
        # Taking a recording away is an input as well.
        return (None, _NOTHING_YET) if audio is None else score(classifier, audio, window)

    def listen_or_ask(audio: str | None, window: float, request: gr.Request) -> tuple[dict[str, float] | None, str]:
        if audio is None:
            raise gr.Error("Give a recording first: drop a file, or record one.", print_exception=False)
        return listen(audio, window, request)

    def leave(request: gr.Request) -> None:
        keep_only(None, request.session_hash)

    title = f"{name}: speech emotion recognition"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT_SECONDS // 10, KEPT_SECONDS)) as page:
        gr.Markdown(f"# {_TITLE}\n`{name}` scores {len(classifier.labels)} emotions: {', '.join(classifier.labels)}.")
        with gr.Row():
            with gr.Column():
                audio = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Recording",
                    buttons=["download"],
                    elem_id="audio",
                )
                window = gr.Slider(1, WIDEST_SECONDS, WINDOW_SECONDS, step=0.5, label="Seconds per window")
                button = gr.Button("Listen", variant="primary", elem_id="listen")
            with gr.Column():
                label = gr.Label(label="The whole recording", elem_id="scores")
        timeline = gr.HTML(
            _NOTHING_YET, label="Over time", show_label=True, container=True, padding=True, elem_id="timeline"
        )
        gr.Markdown(_LIMITS, elem_classes="limits")
        inputs, outputs = [audio, window], [label, timeline]
        button.click(listen_or_ask, inputs, outputs, api_name="listen")
        audio.input(listen, inputs, outputs, show_progress="full", api_visibility="private")
        page.unload(leave)
    return page


def score(classifier: SpeechEmotionClassifier, audio: str, window: float) -> tuple[dict[str, float], str]:
    """Score a file, whole and over time.

    Args:
        classifier: The model.
        audio: Path of the recording.
        window: Length of a window in seconds; windows overlap by half.

    Returns:
        Label → probability of the whole recording, and the timeline as SVG, or a sentence where there is none to draw.

    Raises:
        gr.Error: The file is no recording; the page shows why.
    """
    from gmp_atl_hf.inference.predictions import Prediction

    prediction: Any = classifier(audio, window, window / 2)
    assert isinstance(prediction, Prediction)
    if prediction.error is not None:
        # The path is one of Gradio's own: the name alone tells its owner which file it was.
        raise gr.Error(prediction.error.replace(audio, Path(audio).name), print_exception=False)
    windows = [Scored(one.start, one.end, one.scores) for one in prediction.windows or []]
    if len(windows) < 2:
        note = (
            f"The recording is no longer than {window:g} s, so it was scored as a whole; there is no course over time."
        )
        return prediction.scores, f"<p style='opacity: 0.6'>{escape(note)}</p>"
    return prediction.scores, timeline_svg(windows, classifier.labels)


def serve(classifier: SpeechEmotionClassifier, name: str, **options: Any) -> gr.Blocks:
    """Build the page and serve it with options of `gradio.Blocks.launch`; return it at once or when it is closed."""
    # Fonts of the reader's own machine: nothing is fetched from anywhere.
    theme = gr.themes.Soft(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    page = build_page(classifier, name)
    page.launch(max_file_size=LARGEST_UPLOAD, theme=theme, css=_CSS, footer_links=[], ssr_mode=False, **options)
    return page


def main() -> None:
    """Serve the model named in `model_id.txt` beside this file, as a Space does."""
    from gmp_atl_hf import SpeechEmotionClassifier

    model_id = Path(__file__).with_name(MODEL_ID_FILE).read_text(encoding="utf-8").strip()
    serve(SpeechEmotionClassifier.from_pretrained(model_id), model_id)


if __name__ == "__main__":
    main()
