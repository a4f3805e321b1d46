"""The page as a Space: its files."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..hub.commit import HubFile

PACKAGE = Path(__file__).resolve().parents[1]
GRADIO_VERSION = "6.31.0"


def files_of_space(space_id: str, model_id: str) -> list[HubFile]:
    """List what makes a Space of the page, sorted by path.

    The package goes along as source, so that the Space needs no package index to know it.
    """
    page = Path(__file__).parent
    metadata = {
        "title": space_id.split("/")[-1],
        "emoji": "👂",
        "colorFrom": "blue",
        "colorTo": "gray",
        "sdk": "gradio",
        "sdk_version": GRADIO_VERSION,
        "python_version": "3.11",
        "app_file": "app.py",
        "license": "apache-2.0",
        "models": [model_id],
        "short_description": "Emotions that a recording of speech sounds like",
    }
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    link = f"[{model_id}](https://huggingface.co/{model_id})"
    readme = f"---\n{front}---\n\nThe page of {link}; the model's card says what it can't do.\n"
    files = [
        HubFile("README.md", readme.encode()),
        HubFile("app.py", page / "app.py"),
        HubFile("model_id.txt", f"{model_id}\n".encode()),
        HubFile("requirements.txt", page / "requirements.txt"),
    ]
    package = [
        file
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and "packaged" not in file.relative_to(PACKAGE).parts
    ]
    files += [HubFile(f"{PACKAGE.name}/{file.relative_to(PACKAGE).as_posix()}", file) for file in package]
    return sorted(files, key=lambda file: file.path)
