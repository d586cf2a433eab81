"""Downloads from a real S3 server on loopback: whole, resumed, changed, refused, failing, and silent about keys."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from iqt.cohort import download, s3
from iqt.cohort.download import Downloader
from iqt.cohort.places import AbsentError
from iqt.config import S3
from iqt.errors import StopError
from s3 import KEYS, Server

MB = 1 << 20
KEY = "HCP_1200/900001/T1w/scan.nii.gz"
URL = f"s3://a-bucket/{KEY}"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys in the environment, and no profile of the machine's."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(0).bytes(5 * MB + 12345)


@pytest.fixture
def server(content: bytes, keys: None):
    with Server() as running:
        client = running.client()
        client.create_bucket(Bucket="a-bucket")
        client.put_object(Bucket="a-bucket", Key=KEY, Body=content)
        yield running


def settings(server: Server, **changes) -> S3:
    return S3(**{"bucket": "a-bucket", "endpoint": server.url, "part_mb": 1, "attempts": 4} | changes)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_download_is_whole_recorded_and_never_repeated(server: Server, content: bytes, tmp_path: Path) -> None:
    record = Downloader(settings(server), tmp_path / "d")(URL)
    path = tmp_path / "d" / "a-bucket" / KEY
    assert path.read_bytes() == content
    assert record["path"] == str(path)
    assert record["source"] == URL
    assert record["bytes"] == len(content)
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert record["verified"] == "size and MD5"
    assert len(server.ranges) == 6, "five megabytes and a bit, in parts of one"
    assert leftovers(tmp_path / "d") == [".scan.nii.gz.json", "scan.nii.gz"]

    server.asked.clear()
    assert Downloader(settings(server), tmp_path / "d")(URL) == record
    assert not server.asked, "a file that is there is checked here, not asked for"
    path.write_bytes(content[:-1] + b"x")
    assert Downloader(settings(server), tmp_path / "d")(URL) == record
    assert path.read_bytes() == content, "a damaged one is brought again"


def test_an_object_uploaded_in_parts_is_verified_by_its_parts(server: Server, content: bytes, tmp_path: Path) -> None:
    client = server.client()
    upload = client.create_multipart_upload(Bucket="a-bucket", Key="parts")["UploadId"]
    parts = []
    for number, body in enumerate((content[: 5 * MB], content[5 * MB :]), start=1):
        part = client.upload_part(Bucket="a-bucket", Key="parts", UploadId=upload, PartNumber=number, Body=body)
        parts.append({"ETag": part["ETag"], "PartNumber": number})
    client.complete_multipart_upload(Bucket="a-bucket", Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    record = Downloader(settings(server), tmp_path)("s3://a-bucket/parts")
    assert record["verified"] == "size and MD5 of its parts"
    assert record["sha256"] == hashlib.sha256(content).hexdigest()


def test_bytes_that_arrive_wrong_are_not_kept(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_md5", lambda *_: b"another")
    with pytest.raises(StopError, match="changes while it is downloaded"):
        Downloader(settings(server), tmp_path)(URL)
    assert "scan.nii.gz" not in leftovers(tmp_path)


@pytest.mark.slow
def test_killed_half_way_it_goes_on_where_it_was(server: Server, content: bytes, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from iqt.config import S3; from iqt.cohort.download import Downloader\n"
        f"Downloader(S3(bucket='a-bucket', endpoint={server.url!r}, part_mb=1), Path({str(tmp_path)!r}))({URL!r})"
    )
    server.seconds_per_mb = 0.4
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    path = f"/a-bucket/{KEY}"
    until = time.monotonic() + 60
    while server.sent[path] < 2.5 * MB and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # the server's part in flight
    assert "scan.nii.gz" not in leftovers(tmp_path)
    first = server.sent[path]
    assert 2 * MB < first < len(content)

    server.seconds_per_mb = 0
    record = Downloader(settings(server), tmp_path)(URL)
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert server.sent[path] - len(content) < MB, "bytes fetched twice: less than one part"


def interrupt(server: Server, folder: Path) -> None:
    """Leave a part of the object behind, by a server that fails after two megabytes."""
    server.refuse = lambda method, path: (500, "InternalError") if server.sent[path] >= 2 * MB else None
    with pytest.raises(StopError, match="500"):
        Downloader(settings(server, attempts=1), folder)(URL)
    server.refuse = lambda method, path: None
    assert (folder / "a-bucket" / KEY).with_name(".scan.nii.gz.partial").stat().st_size == 2 * MB


def test_an_object_that_changed_meanwhile_is_begun_anew(server: Server, content: bytes, tmp_path: Path) -> None:
    interrupt(server, tmp_path)
    newer = content[::-1]
    server.client().put_object(Bucket="a-bucket", Key=KEY, Body=newer)
    Downloader(settings(server), tmp_path)(URL)
    assert (tmp_path / "a-bucket" / KEY).read_bytes() == newer


def test_an_object_that_changes_between_two_parts_is_noticed(server: Server, content: bytes, tmp_path: Path) -> None:
    """The server holds If-Match against what it has now: 412, and the download begins again."""
    newer = content[::-1]
    replaced = []

    def replace(method: str, path: str) -> None:
        if server.sent[path] >= 2 * MB and not replaced:
            replaced.append(path)
            server.client().put_object(Bucket="a-bucket", Key=KEY, Body=newer)

    server.refuse = replace
    record = Downloader(settings(server), tmp_path)(URL)
    assert replaced
    assert (tmp_path / "a-bucket" / KEY).read_bytes() == newer
    assert record["sha256"] == hashlib.sha256(newer).hexdigest()


def test_an_object_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(AbsentError, match="s3://a-bucket/none: no such object"):
        Downloader(settings(server), tmp_path)("s3://a-bucket/none")
    assert leftovers(tmp_path) == []
    with pytest.raises(StopError, match="no such bucket"):
        s3.check_access(settings(server, bucket="another-bucket"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDenied", ["terms", "balsa"]),
        ("InvalidAccessKeyId", ["wrong or were reset", "Get/Reset"]),
        ("SignatureDoesNotMatch", ["wrong or were reset"]),
        ("ExpiredToken", ["expired"]),
    ],
)
def test_a_refusal_says_what_to_do_and_no_key(server: Server, tmp_path: Path, code: str, words: list[str]) -> None:
    server.refuse = lambda method, path: (403, code)
    for attempt in (
        lambda: Downloader(settings(server), tmp_path)(URL),
        lambda: Downloader(settings(server), tmp_path).size(URL),
        lambda: s3.check_access(settings(server)),
        lambda: s3.list_folders(settings(server)),
    ):
        with pytest.raises(StopError) as caught:
            attempt()
        message = str(caught.value)
        assert all(word in message for word in words)
        assert not any(key in message for key in KEYS.values())
        assert server.asked.total() <= 2, "a refusal is not asked for again"
        server.asked.clear()


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (503, "ServiceUnavailable")])
def test_bursts_of_failures_and_throttling_are_waited_out(
    server: Server, content: bytes, tmp_path: Path, status: int, code: str
) -> None:
    failures = iter([True, True, False, False, True, True])
    server.refuse = lambda method, path: (status, code) if next(failures, False) else None
    record = Downloader(settings(server), tmp_path)(URL)
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert server.sent[f"/a-bucket/{KEY}"] == len(content), "nothing twice"


def test_a_server_that_goes_on_failing_ends_in_a_sentence(server: Server, tmp_path: Path) -> None:
    server.refuse = lambda method, path: (503, "SlowDown")
    with pytest.raises(StopError, match=r"503.*after 2 attempts; start again later"):
        Downloader(settings(server, attempts=2), tmp_path)(URL)


def test_connections_that_break_are_gone_on_with(
    server: Server, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LONGEST_PAUSE", 0.01)
    server.cut_after = 300_000
    record = Downloader(settings(server), tmp_path)(URL)
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert len(server.ranges) > 10
    server.client().put_object(Bucket="a-bucket", Key="other", Body=content)
    server.cut_after = 0
    with pytest.raises(StopError, match="broke 4 times"):
        Downloader(settings(server), tmp_path)("s3://a-bucket/other")


def test_no_network_no_keys_and_unknown_profiles(keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = S3(bucket="a-bucket", endpoint="http://127.0.0.1:9", attempts=1)
    with pytest.raises(StopError, match=r"cannot be reached.*check the network"):
        s3.check_access(nobody)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StopError, match=r"no AWS keys.*profile named hcp"):
        s3.check_access(nobody.model_copy(update={"profile": "hcp"}))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StopError, match="no AWS keys"):
        s3.check_access(nobody)


def test_a_profile_is_used_where_the_environment_has_no_keys(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name.upper())
    lines = ["[hcp]", *(f"{name} = {value}" for name, value in KEYS.items())]
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text("\n".join(lines))
    assert s3.list_folders(settings(server, prefix="HCP_1200", profile="hcp")) == ["900001"]
    assert s3.list_keys(settings(server, prefix="HCP_1200", profile="hcp"), "900001") == ["900001/T1w/scan.nii.gz"]
    assert s3.list_folders(settings(server, anonymous=True)) == ["HCP_1200"]


def test_a_full_disk_ends_in_a_sentence(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Downloader, "_receive", full)
    with pytest.raises(StopError, match=r"the disk is full.*make room"):
        Downloader(settings(server), tmp_path)(URL)


def test_a_key_cannot_lead_out_of_the_folder(server: Server, tmp_path: Path) -> None:
    for url in ("s3://a-bucket/../../etc/x", "s3://other-bucket/x"):
        with pytest.raises(Exception, match="is no object of"):
            Downloader(settings(server), tmp_path)(url)


def test_two_jobs_that_want_the_same_file_bring_it_once(server: Server, content: bytes, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server.seconds_per_mb = 0.05
    downloaders = [Downloader(settings(server), tmp_path) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        records = list(pool.map(lambda each: each(URL), downloaders))
    assert records[0] == records[1] == records[2]
    assert server.sent[f"/a-bucket/{KEY}"] == len(content)
    assert leftovers(tmp_path) == [".scan.nii.gz.json", "scan.nii.gz"]
