"""Every form of a model argument finds its folder, or says in one line what would."""

import errno
import fnmatch
import json
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from quaver.checkpoints import hub as hub_module
from quaver.checkpoints import source
from quaver.checkpoints.source import CODEC_FILES, ModelFolder, bundled, cached, resolve
from quaver.core.errors import CheckpointError, InputError

COMMIT = "6fc2550cf2e7236861b920e91769a4f93fd23283"
REPOSITORY = [
    ".gitattributes", "README.md", "config.json", "generation_config.json",
    "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    "model.safetensors.index.json", "optimizer.bin", "optimizer.safetensors", "optimizer.pt",
    "optimizer_0/__0_0.distcp", "pytorch_model.bin", "pytorch_model_fsdp.bin", "scheduler.pt",
    "checkpoint-500/model.safetensors", "checkpoint-500/optimizer.bin", "rng_state_0.pth",
    "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "trainer_state.json",
    "codec/config.json", "codec/model.safetensors", "quaver.json",
]  # fmt: skip


@pytest.fixture
def nano(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "bundled" / "nano"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (tmp_path / "bundled" / "__pycache__").mkdir()
    monkeypatch.setattr(source, "_BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def hub(nano, tmp_path, monkeypatch) -> list[dict[str, object]]:
    """A hub whose downloads succeed; the calls it gets."""
    calls = []
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")

    def download(repo_id, **options):
        calls.append({"repo_id": repo_id, **options})
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_bundled_name(nano, hub):
    assert bundled() == {"nano": nano}
    assert resolve("nano") == ModelFolder(nano, "nano", None)
    assert not hub


def test_local_folder_comes_before_the_hub(nano, hub, tmp_path):
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"has no config\.json; a model folder needs"):
        resolve("org/name")
    (folder / "config.json").write_text("{}")
    assert resolve("org/name") == ModelFolder(Path("org/name"), "name", None)
    assert resolve(str(folder)).path == folder
    assert not hub


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "refs/pr/3", COMMIT])
def test_hub_id(hub, tmp_path, revision):
    found = resolve("canopylabs/orpheus-3b-0.1-ft" + (f"@{revision}" if revision else ""))
    assert found == ModelFolder(
        tmp_path / "snapshots" / COMMIT, "canopylabs/orpheus-3b-0.1-ft", COMMIT
    )
    assert hub[0]["repo_id"] == "canopylabs/orpheus-3b-0.1-ft"
    assert hub[0]["revision"] == revision


def wanted(call: dict[str, object]) -> set[str]:
    return set(
        filter_repo_objects(
            REPOSITORY,
            allow_patterns=call["allow_patterns"],
            ignore_patterns=call["ignore_patterns"],
        )
    )


def test_only_what_a_model_needs_is_downloaded(hub):
    resolve("org/name")
    assert wanted(hub[0]) == {
        "config.json", "generation_config.json", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
        "codec/config.json", "codec/model.safetensors", "quaver.json",
    }  # fmt: skip


def test_a_pickle_is_downloaded_for_a_codec_only(hub):
    resolve("hubertsiuzdak/snac_24khz", CODEC_FILES)
    assert "pytorch_model.bin" in wanted(hub[0])
    assert not any(fnmatch.fnmatch("optimizer.bin", p) for p in hub[0]["allow_patterns"])


@pytest.mark.parametrize(
    "model",
    ["nanoo", "", " ", "./absent", "/absent/x", "a/b/c", "../x/y", "org/name@", "org/name@../../x",
     "https://huggingface.co/org/name", "org/na me", "x" * 5000, "a\0b", "org/name\n", "-x/y"],
)  # fmt: skip
def test_neither_folder_nor_id(hub, model):
    with pytest.raises(InputError) as caught:
        resolve(model)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not hub


def test_an_id_that_the_hub_forbids(nano):
    with pytest.raises(InputError, match="'a--b/c' is no hub id"):
        resolve("a--b/c")


def test_the_message_lists_what_is_allowed(nano):
    with pytest.raises(InputError, match=r"'nanoo' is not known; .*\(nano\).*org/name@revision"):
        resolve("nanoo")
    with pytest.raises(InputError, match="is a file; give the folder"):
        resolve(str(nano / "config.json"))


class Response:
    """What the hub's errors read of a response, whichever HTTP library made it."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code
        self.headers: dict[str, str] = {}
        self.request = None


def http(kind: type[Exception], status: int) -> Exception:
    return kind("words\nof the hub", response=Response(status))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (http(errors.GatedRepoError, 403), "accept the licence.*HF_TOKEN"),
        (http(errors.HfHubHTTPError, 403), "accept the licence.*HF_TOKEN"),
        (http(errors.HfHubHTTPError, 401), "HF_TOKEN"),
        (http(errors.RepositoryNotFoundError, 404), "no such public repository.*nano"),
        (http(errors.RevisionNotFoundError, 404), "no such revision; .*branch, a tag"),
        (http(errors.HfHubHTTPError, 500), "check the network"),
        (errors.LocalEntryNotFoundError("offline"), "the cache lacks it.*network.*nano"),
        (errors.OfflineModeIsEnabled("offline"), "check the network"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left.*HF_HOME"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (RuntimeError("xet"), "xet"),
        (errors.HfHubHTTPError.__bases__[0]("cut off"), "cut off.*check the network"),
    ],
)
def test_every_failure_of_the_hub_is_one_line_with_advice(nano, monkeypatch, error, words):
    def download(repo_id, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match=words) as caught:
        resolve("org/name@main")
    assert str(caught.value).startswith("cannot get org/name@main: ")
    assert "\n" not in str(caught.value)


def test_offline_names_the_setting_that_forbids_it(nano, monkeypatch):
    def download(repo_id, **options):
        raise errors.LocalEntryNotFoundError("outgoing traffic has been disabled")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="unset HF_HUB_OFFLINE"):
        resolve("org/name")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Puts the hub's cache somewhere by a variable, as a new process would read it."""

    def put(variable: str, value: Path, cache: Path) -> None:
        for name in hub_module.CACHE_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, str(value))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    return put


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("kind", ["a file", "below a file", "too long", "a device"])
def test_a_cache_that_cannot_be_used_is_named(nano, tmp_path, monkeypatch, place, variable, kind):
    file = tmp_path / "file"
    file.write_text("x")
    value = {
        "a file": file,
        "below a file": file / "deeper",
        "too long": tmp_path / ("a" * 300),
        "a device": Path("/proc/nowhere"),
    }[kind]
    place(variable, value, value if variable == "HF_HUB_CACHE" else value / "hub")

    def download(repo_id, **options):
        raise errors.LocalEntryNotFoundError("what the client makes of it")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError) as caught:
        resolve("org/name")
    assert f"{variable} is '{str(value)[:200]}'" in str(caught.value)
    assert "network" not in str(caught.value)
    assert cached() == []


def test_a_cache_that_can_be_used_is_no_problem(tmp_path, place):
    place("HF_HOME", tmp_path / "new", tmp_path / "new" / "hub")
    assert hub_module.cache_problem() is None
    assert not (tmp_path / "new").exists()
    assert hub_module.cache_problem(use=True) is None


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        (None, 401, "set HF_TOKEN if it is private"),
        ("hf_x", 401, "HF_TOKEN is out of date"),
        ("hf_x", 429, "wait a few minutes"),
    ],
)
def test_a_refusal_depends_on_the_token(nano, monkeypatch, token, status, words):
    def download(repo_id, **options):
        raise http(errors.HfHubHTTPError, status)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    with pytest.raises(CheckpointError, match=words):
        resolve("org/name")


def test_a_variable_that_the_client_cannot_read_is_named(nano, monkeypatch):
    def download(repo_id, **options):
        return int("soon")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "soon")
    with pytest.raises(CheckpointError, match=r"'soon'\); look at .*HF_HUB_ETAG_TIMEOUT"):
        resolve("org/name")


def test_cached_models(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(cache))
    assert cached() == []
    for repo, file in (
        ("models--b--two", "config.json"),
        ("models--a--one", "config.json"),
        ("models--c--other", "x.txt"),
        ("datasets--d--data", "config.json"),
    ):
        snapshot = cache / repo / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (snapshot / file).write_text(json.dumps({}))
        (cache / repo / "refs").mkdir()
        (cache / repo / "refs" / "main").write_text(COMMIT)
    assert [(m.name, m.revision) for m in cached()] == [("a/one", COMMIT), ("b/two", COMMIT)]
    assert all((m.path / "config.json").is_file() for m in cached())
