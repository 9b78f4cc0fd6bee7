"""The door to the Hugging Face Hub for what leaves: a folder becomes a commit of a model repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tasks.errors import UserError

PREFIX: Final = "hub:"
NAME: Final = re.compile(r"[\w.-]+/[\w.-]+")
OWN_FILES: Final = frozenset({".gitattributes"})  # what the Hub puts into a new repository
HINT: Final = "check the name, the network, and that the token may write"


def repository_of(target: str) -> str | None:
    """Return ORG/NAME of `hub:ORG/NAME`, None for a folder."""
    if not target.startswith(PREFIX):
        return None
    name = target.removeprefix(PREFIX)
    if not NAME.fullmatch(name):
        raise UserError(f"{target}: write hub:ORG/NAME, such as hub:my-team/reviews-small, or a folder")
    return name


def require_writable(repository: str) -> None:
    """Raise UserError unless there is a token, and the repository is new or empty."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if get_token() is None:
        raise UserError(f"{PREFIX}{repository}: no token; set HF_TOKEN to one that may write, or call `hf auth login`")
    with _sentences(repository):
        try:
            there = sorted({*HfApi().list_repo_files(repository)} - OWN_FILES)
        except RepositoryNotFoundError as error:  # of a token that is refused, too
            if error.response.status_code != 404:
                raise
            return
    if there:
        raise UserError(f"{PREFIX}{repository}: has {', '.join(there[:5])} already, and nothing is written over; name a new one")


def upload(folder: Path, repository: str, public: bool, message: str) -> str:
    """Return the address of the commit that holds the files of a folder; the repository is made where there is none."""
    from huggingface_hub import HfApi

    with _sentences(repository):
        api = HfApi()
        api.create_repo(repository, private=not public, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url)


@contextmanager
def _sentences(repository: str) -> Iterator[None]:
    """Turn what the library raises into a sentence with what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError(f"{PREFIX}{repository}: HF_HUB_OFFLINE is set, so nothing is uploaded; unset it") from None
    except (HfHubHTTPError, OSError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{PREFIX}{repository}: was not uploaded ({first}); {HINT}") from None
