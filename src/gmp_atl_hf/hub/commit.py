"""Files sent to the Hub as one commit, and its refusals in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ..errors import RequestError

_NO_CONNECTION = (OfflineModeIsEnabled, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class HubFile:
    """A file to send: its path in the repository, and its bytes or where it lies."""

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def check_repo_id(repo_id: str) -> None:
    """Refuse a name that no repository can have, with a `RequestError`."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RequestError(
            f"{repo_id!r} can be no id of a repository: {str(error).splitlines()[0]}",
            "owner/name, of letters, digits and - _ .",
            "gmp-atl push runs/demo your-name/your-model",
        ) from error


def push_files(
    files: Sequence[HubFile],
    repo_id: str,
    *,
    message: str,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    space: bool = False,
) -> CommitInfo:
    """Make the repository if there is none, and send the files as one commit.

    Args:
        files: What to send.
        repo_id: Id of the repository.
        message: Message of the commit.
        private: Whether a new repository is private; None for the owner's setting. Nothing changes in an old one.
        revision: Branch to commit to, made if it is missing; None for the main one.
        token: A token in place of the one that is stored; it is never shown.
        space: Whether it is a Space with a Gradio page instead of a model.

    Raises:
        RequestError: Nobody is logged in, the Hub cannot be reached, or it refuses.
    """
    check_repo_id(repo_id)
    token = token or get_token()
    if token is None:
        raise RequestError(
            "you are not logged in to the Hub", "a token that may write", "hf auth login, or set HF_TOKEN"
        )
    api = HfApi(token=token)
    kind = "space" if space else "model"
    with _explained(repo_id, token):
        made = api.create_repo(
            repo_id, private=private, exist_ok=True, repo_type=kind, space_sdk="gradio" if space else None
        )
        # The Hub adds the owner to a bare name.
        repo_id = made.repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True, repo_type=kind)
        return api.create_commit(
            repo_id,
            [CommitOperationAdd(file.path, file.content) for file in files],
            commit_message=message,
            revision=revision,
            repo_type=kind,
        )


@contextmanager
def _explained(repo_id: str, token: str) -> Iterator[None]:
    """Turn the Hub's refusals into wrong requests, with no token in any of them."""
    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reason = _hide_token(token, error.server_message or str(error).splitlines()[0])
        if isinstance(error, RevisionNotFoundError):
            raise RequestError(f"the Hub knows no such revision of {repo_id}: {reason}", "a branch") from None
        if status == 401 and not isinstance(error, RepositoryNotFoundError):
            raise RequestError(
                f"the Hub does not accept your token: {reason}", "a token that is valid", "hf auth login"
            ) from None
        if status in (401, 403, 404):
            raise RequestError(
                f"the Hub does not let you write to {repo_id}: {reason}",
                "a repository of your own or of an organisation you may write for, and a token that may write",
                "hf auth whoami shows who you are; hf auth login takes another token",
            ) from None
        raise RuntimeError(f"the Hub could not take {repo_id} (status {status}): {reason}") from None
    except Exception as error:
        if isinstance(error, _NO_CONNECTION) or type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore"):
            raise RequestError(
                f"the Hub at {constants.ENDPOINT} cannot be reached: {_hide_token(token, str(error))}",
                "a network, and HF_HUB_OFFLINE not set",
                "try again",
            ) from None
        raise


def _hide_token(token: str, text: str) -> str:
    return text.replace(token, "***")
