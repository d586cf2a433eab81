"""An S3 server on loopback: moto behind a layer that can slow it down, break it off, and count what it sends."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEYS = {"aws_access_key_id": "AKIAFAKEFAKEFAKEFAKE", "aws_secret_access_key": "fake+secret/key/that/must/stay/secret"}


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        pass


class Server:
    """Use as a context manager; `url` is the endpoint.

    `refuse(method, path)` may return (status, code) to answer with; `seconds_per_mb` slows bodies down; `cut_after`
    ends every body after so many bytes. `sent` counts the bytes of each object's bodies, `asked` the requests.
    """

    def __init__(self) -> None:
        self.refuse: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self.seconds_per_mb = 0.0
        self.cut_after: int | None = None
        self.sent: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.ranges: list[str] = []
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        # moto keeps its buckets for the life of the process: another test's must not show here
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")).close()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def client(self):
        """A client that no fault concerns: it speaks to moto beside the layer."""
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **KEYS)

    def upload(self, bucket: str, root: Path, prefix: str = "", public: bool = False) -> dict[str, int]:
        """Every file below a folder, as `<prefix><path>`; their sizes by key. `public` ones need no keys."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        if public:
            everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/*"}
            client.put_bucket_policy(
                Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everybody]})
            )
        sizes = {}
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            key = f"{prefix}{path.relative_to(root).as_posix()}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
            sizes[key] = path.stat().st_size
        return sizes

    def _answer(self, environ: dict, start_response: Callable) -> Iterator[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method in ("GET", "HEAD"):
            self.asked[path] += 1
            refusal = self.refuse(method, path)
            if refusal:
                return _error(*refusal, method, start_response)
        if method == "GET" and environ.get("HTTP_RANGE"):
            self.ranges.append(environ["HTTP_RANGE"])
        body = self._moto(environ, start_response)
        return self._send(path, body) if method == "GET" else body

    def _send(self, path: str, body: Iterator[bytes]) -> Iterator[bytes]:
        left = self.cut_after
        for block in body:
            for start in range(0, len(block), 1 << 16):
                piece = block[start : start + (1 << 16)]
                if left is not None:
                    piece, left = piece[:left], left - len(piece[:left])
                    if not piece:
                        return
                time.sleep(self.seconds_per_mb * len(piece) / (1 << 20))
                self.sent[path] += len(piece)
                yield piece


def _error(status: int, code: str, method: str, start_response: Callable) -> list[bytes]:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made by a test</Message></Error>".encode()
    text = b"" if method == "HEAD" else text
    start_response(f"{status} error", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
    return [text]
