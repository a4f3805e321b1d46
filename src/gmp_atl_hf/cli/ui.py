"""`gmp-atl ui`: a web page that records or takes an upload and shows scores, on this machine."""

from __future__ import annotations

import argparse
import importlib.util
import signal
from pathlib import Path

from ..errors import RequestError
from ..run_folder.layout import MODEL
from .arguments import add_model
from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: this machine alone)")
    parser.add_argument("--port", type=int, help="port to serve on (default: the first free one from 7860)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 … (default: the accelerator if there is one)")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def perform(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise RequestError(f"--port is {arguments.port}", "a number from 1 to 65535", "--port 7860, or leave it out")
    if importlib.util.find_spec("gradio") is None:
        raise RequestError("gradio is not installed", "the extra `ui`", 'pip install -e ".[ui]"')
    from ..inference.classifier import SpeechEmotionClassifier

    classifier = SpeechEmotionClassifier.from_pretrained(arguments.model, arguments.device)
    from ..ui.app import serve

    folder = Path(arguments.model)
    # A model's own folder is called `model` in every run: the run's name says more.
    name = folder.resolve().parent.name if folder.is_dir() and folder.name == MODEL else folder.name
    page = serve(
        classifier,
        name if folder.is_dir() else arguments.model,
        server_name=arguments.host,
        server_port=arguments.port,
        inbrowser=arguments.open,
        quiet=True,
        prevent_thread_lock=True,
    )
    say(f"The page is at {page.local_url} (Ctrl+C ends it).")
    # Whoever ends it, and however: recordings of people are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        page.block_thread()
    finally:
        page.close()
    return DONE
