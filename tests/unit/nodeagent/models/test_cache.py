"""The hub's cache: what is found in it, what is said of what is not, and that nothing else is ever deleted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from nodeagent.models.cache import HubCache, Kept, NotCached, cache_root, missing_files
from tests.support.hub_cache import COMMIT, OTHER_COMMIT, cache_model

REPOSITORY = "acme/tiny"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    return HubCache(tmp_path / "hub")


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HF_HUB_CACHE": "", "XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
    ids=["its own variable", "its old variable", "the home of the hub", "the cache of the user", "an empty variable"],
)
def test_the_cache_is_where_the_libraries_of_the_hub_keep_it(environ: Mapping[str, str], root: str) -> None:
    assert cache_root(environ) == Path(root)


def test_without_any_variable_it_is_below_the_home_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache_root({}) == Path("/home/ann/.cache/huggingface/hub")


@pytest.mark.parametrize("revision", ["", "main", "pr/1", COMMIT])
def test_a_repository_is_found_by_branch_tag_and_commit(cache: HubCache, files: Path, revision: str) -> None:
    cache_model(cache.root, REPOSITORY, files, reference="pr/1")
    snapshot = cache_model(cache.root, REPOSITORY, files, commit=OTHER_COMMIT)
    cache_model(cache.root, REPOSITORY, files, commit="c" * 40)
    (cache.root / "models--acme--tiny/refs/main").write_text(OTHER_COMMIT)
    found = cache.find(REPOSITORY, revision)
    assert found.path == (snapshot if revision in ("", "main") else snapshot.parent / COMMIT)


@pytest.mark.parametrize(
    ("repository", "revision", "said"),
    [
        ("acme/other", "", "/hub has no models--acme--other"),
        (REPOSITORY, "v2", f"has no revision v2, it has main, {COMMIT}"),
        (REPOSITORY, OTHER_COMMIT, f"has no revision {OTHER_COMMIT}, it has main, {COMMIT}"),
        ("../../etc", "", "is no repository"),
        ("acme/..", "", "is no repository"),
    ],
    ids=["another repository", "another branch", "another commit", "a path that climbs", "a name that climbs"],
)
def test_what_is_not_cached_is_said_with_the_place(
    cache: HubCache, files: Path, repository: str, revision: str, said: str
) -> None:
    cache_model(cache.root, REPOSITORY, files)
    with pytest.raises(NotCached) as refused:
        cache.find(repository, revision)
    assert said in str(refused.value)


def test_a_branch_whose_snapshot_is_gone_is_not_cached(cache: HubCache, files: Path) -> None:
    shutil.rmtree(cache_model(cache.root, REPOSITORY, files))
    with pytest.raises(NotCached, match="has no revision main, it has main"):
        cache.find(REPOSITORY, "")


def test_a_link_to_a_blob_that_was_never_fetched_is_a_missing_file(cache: HubCache, files: Path) -> None:
    (files / "model.safetensors.index.json").write_text('{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}')
    (files / "1.safetensors").write_bytes(b"half of it")
    snapshot = cache_model(cache.root, REPOSITORY, files)
    (snapshot / "config.json").resolve().unlink()
    assert missing_files(snapshot) == ["config.json", "tokenizer.json", "2.safetensors"]


def test_a_snapshot_is_described_by_what_its_links_lead_to(cache: HubCache, files: Path) -> None:
    cache_model(cache.root, REPOSITORY, files)
    [cached] = cache.list()
    assert (cached.repository, cached.commit, cached.references) == (REPOSITORY, COMMIT, ("main",))
    assert (cached.size_bytes, cached.file_count) == (11, 3)
    assert cached.last_used_time_s > 0


@pytest.mark.parametrize("name", ["models--..--x", "models--a--b--c", "models--", "models--a--.b", "datasets--a--b"])
def test_a_folder_that_is_no_repository_is_passed_over(cache: HubCache, name: str) -> None:
    (cache.root / name / "snapshots" / COMMIT).mkdir(parents=True)
    assert cache.list() == []


def test_no_cache_is_an_empty_one(cache: HubCache) -> None:
    assert cache.list() == []
    cache.delete(REPOSITORY, COMMIT)


def test_what_another_commit_shares_stays(cache: HubCache, files: Path) -> None:
    cache_model(cache.root, REPOSITORY, files)
    (files / "model.safetensors").write_bytes(b"newer weights")
    newer = cache_model(cache.root, REPOSITORY, files, commit=OTHER_COMMIT, reference="next")
    cache.delete(REPOSITORY, COMMIT)
    [left] = cache.list()
    assert (left.commit, left.references) == (OTHER_COMMIT, ("next",))
    assert missing_files(newer) == []
    assert len(list((newer.parents[1] / "blobs").iterdir())) == 2  # two files are alike; the old weights are gone


def test_the_last_commit_takes_the_repository_with_it(cache: HubCache, files: Path) -> None:
    cache_model(cache.root, REPOSITORY, files)
    cache_model(cache.root, "acme/other", files)
    cache.delete(REPOSITORY, COMMIT)
    assert [each.repository for each in cache.list()] == ["acme/other"]
    assert not (cache.root / "models--acme--tiny").exists()


@pytest.mark.parametrize("part", ["", "snapshots", f"snapshots/{COMMIT}", "blobs"])
def test_what_is_reached_over_a_link_is_not_deleted(cache: HubCache, files: Path, tmp_path: Path, part: str) -> None:
    cache_model(cache.root, REPOSITORY, files)
    inside, outside = cache.root / "models--acme--tiny" / part, tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    with pytest.raises(Kept, match="over a link"):
        cache.delete(REPOSITORY, COMMIT)
    assert sorted(outside.rglob("*")) == before


def test_a_file_outside_to_which_a_snapshot_leads_is_not_deleted(cache: HubCache, files: Path, tmp_path: Path) -> None:
    snapshot = cache_model(cache.root, REPOSITORY, files)
    cache_model(cache.root, REPOSITORY, files, commit=OTHER_COMMIT, reference="next")
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (snapshot / "link").symlink_to(precious)
    cache.delete(REPOSITORY, COMMIT)
    assert precious.read_text() == "mine"
    assert not snapshot.exists()


@pytest.mark.parametrize("commit", ["..", "main", COMMIT[:-1], f"{COMMIT}/.."])
def test_what_is_no_commit_is_not_deleted(cache: HubCache, files: Path, commit: str) -> None:
    cache_model(cache.root, REPOSITORY, files)
    with pytest.raises(Kept, match="is no commit"):
        cache.delete(REPOSITORY, commit)
    assert len(cache.list()) == 1
