"""What a source may lead to: no link out of a folder, nothing beside a package, on a shared machine no other person's files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tasks.data.sources import PATH_ROOTS, locate, source_digest
from tasks.errors import SourceError
from tasks.models.weight_files import INDEX, weight_files

SECRET = "text,label\nsecret,1\n"
TEACHER, DATA = "teacher.model", "data.source"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder in a project; a secret lies outside of both."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (project / name).touch()
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    folder = project / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}", encoding="utf-8")
    monkeypatch.chdir(project)
    monkeypatch.delenv(PATH_ROOTS, raising=False)
    return folder


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("vocab.txt", "/etc/hostname"),
        ("vocab.txt", "../../secret"),
        ("tokenizer.json", "{tmp}/secret"),
        ("vocab.txt", "chain"),  # which is a link to the secret
        ("vocab.txt", "inner/../../../secret"),
    ],
)
def test_a_link_that_leaves_a_model_folder_is_refused_by_name(model: Path, tmp_path: Path, name: str, target: str) -> None:
    (model / "chain").symlink_to(tmp_path / "secret")
    (model / "inner").mkdir()
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(target.format(tmp=tmp_path))
    with pytest.raises(SourceError, match=rf"links that lead out of the folder: {name} -> /.*; a run copies") as refused:
        locate("path:model", TEACHER)
    assert str(model.name) in str(refused.value)
    (tmp_path / "link").symlink_to(model)  # called by a link of its own, it is the same folder
    with pytest.raises(SourceError, match=name):
        locate(f"path:{tmp_path / 'link'}", TEACHER)


def test_links_inside_a_folder_and_to_it_are_followed(model: Path, tmp_path: Path) -> None:
    before = source_digest("path:model", TEACHER)
    (model / "config.json").rename(model / "config.of.it")
    (model / "config.json").symlink_to("config.of.it")
    (model / "away").symlink_to(tmp_path / "secret")  # which no run reads
    assert source_digest("path:model", TEACHER) == before
    (tmp_path / "by another name").symlink_to(model)
    assert source_digest(f"path:{tmp_path / 'by another name'}", TEACHER) == before


@pytest.mark.parametrize("name", ["rows.csv", "notes.txt", "below/notes.txt"])
def test_a_link_that_leaves_a_data_folder_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    place = model.parent / "data" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match=f"links that lead out of the folder: {name} -> {tmp_path / 'secret'}"):
        locate("path:data", DATA)
    (model.parent / "rows.csv").symlink_to(tmp_path / "secret")
    assert locate("path:rows.csv", DATA).read_text() == SECRET  # a person who names a link means where it leads


def test_a_snapshot_of_the_hubs_cache_is_read_by_its_links(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "hub/models--org--name"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots/0123"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.copyfile(file, cache / f"blobs/{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert source_digest(f"path:{snapshot}", TEACHER) == source_digest("path:model", TEACHER)
    (snapshot / "vocab.txt").symlink_to("../../refs")
    (cache / "refs").write_text("0123")
    with pytest.raises(SourceError, match=r"vocab.txt -> "):
        locate(f"path:{snapshot}", TEACHER)
    (snapshot / "vocab.txt").unlink()
    shutil.rmtree(cache / "blobs")
    (cache / "blobs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    for number in range(3):
        (tmp_path / f"elsewhere/{number}").write_text("{}")
    with pytest.raises(SourceError, match=r"config.json -> "):
        locate(f"path:{snapshot}", TEACHER)


def test_a_shared_machine_allows_its_folders(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, other = tmp_path / "shared", tmp_path / "shared-by-others"
    for folder in (shared, other):
        folder.mkdir()
        (folder / "rows.csv").write_text(SECRET, encoding="utf-8")
    (shared / "link.csv").symlink_to(other / "rows.csv")
    (model.parent / "mine.csv").symlink_to(other / "rows.csv")
    assert locate(f"path:{other / 'rows.csv'}", DATA)  # nothing is set
    monkeypatch.setenv(PATH_ROOTS, os.pathsep.join([str(shared), str(tmp_path / "not there")]))
    assert locate(f"path:{shared / 'rows.csv'}", DATA)
    assert locate("path:model", TEACHER) == Path("model")
    inside = f"{shared}/../shared-by-others/rows.csv"
    for place in (other / "rows.csv", shared / "link.csv", "mine.csv", inside, "/etc/hostname", tmp_path / "no such"):
        with pytest.raises(SourceError, match=f"none of the folders that this machine allows; allowed: the project, {shared}"):
            locate(f"path:{place}", DATA)
    monkeypatch.setenv(PATH_ROOTS, "")
    assert locate("path:model", TEACHER)
    with pytest.raises(SourceError, match=r"allowed: the project \("):
        locate(f"path:{shared / 'rows.csv'}", DATA)


@pytest.mark.parametrize("inner", ["../json.py", "/etc/hostname", "a/../../x", ".."])
def test_a_package_holds_what_is_named_in_it(model: Path, inner: str) -> None:
    assert locate("pkg:json/decoder.py", DATA).name == "decoder.py"
    with pytest.raises(SourceError, match="leads out of the package"):
        locate(f"pkg:json/{inner}", DATA)


@pytest.mark.parametrize("package", ["", "..", "no_such", "os.path", "json.decoder", "1", "a b"])
def test_a_package_is_one_that_is_installed(model: Path, package: str) -> None:
    with pytest.raises(SourceError, match="there is no installed package"):
        locate(f"pkg:{package}/rows.csv", DATA)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "inner/part", ".."])
def test_an_index_names_files_beside_it(model: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / INDEX).write_text(f'{{"weight_map": {{"a": "{name}"}}}}', encoding="utf-8")
    with pytest.raises(SourceError, match="by name alone"):
        weight_files(model)
