"""A small server that plays Kaggle for the real client: keeps what it is given, tells what came, fails when told to."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from jaguar_kit_tools.experiments import session
from jaguar_kit_tools.on_kaggle import client as kaggle_client
from jaguar_kit_tools.on_kaggle import run as kaggle_run
from jaguar_kit_tools.on_kaggle.client import Patience

ALWAYS = 10**9


@dataclass
class Asked:
    """A request: name is the API's method, or "upload" or "download"; body is JSON, or the bytes of an upload."""

    name: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Failure:
    """What becomes of a request: an HTTP status, "cut", "half", "html", or a dict in place of the reply."""

    how: int | str | dict[str, Any]
    times: int
    after: int
    path: str


@dataclass
class Session:
    """A kernel's session: its states one after the other, the last for good; what it leaves, and its log."""

    states: list[str] = field(default_factory=lambda: ["QUEUED", "RUNNING", "COMPLETE"])
    output: dict[str, bytes] = field(default_factory=dict)
    log: str = ""
    failure: str = ""


@dataclass
class Dataset:
    """A dataset: the files of its versions, and the states of the next looks at it, the last for good."""

    versions: list[dict[str, bytes]]
    states: list[str] = field(default_factory=lambda: ["READY"])


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class KaggleServer(ThreadingHTTPServer):
    """Use it in a with statement; `environment` leads the client here."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[Asked] = []
        self.failures: list[tuple[str, Failure]] = []
        self.tokens: dict[str, str] = {}  # user by access token
        self.blobs: dict[str, tuple[str, bytes | None]] = {}  # name and bytes by token
        self.datasets: dict[str, Dataset] = {}
        self.new_states = ["NOT_YET_PERSISTED", "BLOBS_RECEIVED", "READY"]  # of a dataset after an upload
        self.stale_datasets = False  # new versions never show
        self.lost: set[str] = set()  # names of files that an upload loses
        self.kernels: dict[str, list[dict[str, Any]]] = {}  # what was pushed, by owner/slug
        self.sessions: dict[str, Session] = {}  # the latest of each kernel
        self.next_session: Session | None = Session()  # of the next push; None: the earlier one goes on showing
        self.push_reply: dict[str, Any] = {}  # over the usual reply
        self.submissions: list[dict[str, Any]] = []
        self.scores: list[dict[str, Any]] = [{"status": "PENDING"}, {"status": "COMPLETE", "publicScore": "0.90123"}]
        self.limits = {"numToday": 1, "numTotal": 7, "numAllowedNow": 4}
        self.page_size = ALWAYS
        self.lock = threading.Lock()

    def __enter__(self) -> KaggleServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def environment(self, home: Path, scratch: Path) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.server_port}"
        proxies = {"http_proxy": address, "HTTP_PROXY": "", "no_proxy": "", "NO_PROXY": ""}
        folders = {"HOME": str(home), "TMPDIR": str(scratch), "XDG_CONFIG_HOME": ""}
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "KAGGLE_USERNAME": "u", "KAGGLE_KEY": "k", **proxies, **folders}

    def fail(self, name: str, how: int | str | dict, times: int = ALWAYS, after: int = 0, path: str = "") -> None:
        """The next requests of that name go wrong, after some that don't; `path` must be a part of theirs."""
        self.failures.append((name, Failure(how, times, after, path)))

    def failure(self, asked: Asked) -> int | str | dict[str, Any] | None:
        for name, failure in self.failures:
            if name != asked.name or failure.path not in asked.path or failure.times == 0:
                continue
            if failure.after:
                failure.after -= 1
                continue
            failure.times -= 1
            return failure.how
        return None

    def calls(self, name: str) -> list[Any]:
        return [asked.body for asked in self.requests if asked.name == name]

    def check_credentials(self, asked: Asked) -> None:
        kind, _, word = asked.headers.get("Authorization", "").partition(" ")
        known = word in self.tokens if kind == "Bearer" else base64.b64decode(word) == b"u:k"
        if not known:
            raise Refusal(401, "Unauthorized")

    # the API's methods

    def IntrospectToken(self, body: dict) -> dict:
        user = self.tokens.get(body["token"])
        return {"active": user is not None, "username": user or ""}

    def StartBlobUpload(self, body: dict) -> dict:
        token = f"token{len(self.blobs)}"
        self.blobs[token] = (body["name"], None)
        return {"token": token, "createUrl": f"http://localhost/upload/{token}/{quote(body['name'])}"}

    def CreateDataset(self, body: dict) -> dict:
        return self.save_version(f"{body['ownerSlug']}/{body['slug']}", body)

    def CreateDatasetVersion(self, body: dict) -> dict:
        return self.save_version(f"{body['ownerSlug']}/{body['datasetSlug']}", body["body"])

    def save_version(self, name: str, told: dict) -> dict:
        came = dict(self.blobs[file["token"]] for file in told["files"])
        came = {n: c for name, content in came.items() if content is not None for n, c in unpacked(name, content)}
        version = {name: content for name, content in came.items() if name not in self.lost}
        dataset = self.datasets.setdefault(name, Dataset([]))
        dataset.states = list(self.new_states)
        if not self.stale_datasets:
            dataset.versions.append(version)
        return {"ref": name, "url": f"https://www.kaggle.com/datasets/{name}", "status": "ok"}

    def dataset(self, body: dict) -> Dataset:
        name = f"{body['ownerSlug']}/{body['datasetSlug']}"
        if name not in self.datasets:
            raise Refusal(404, f"Not found: {name}")
        return self.datasets[name]

    def GetDatasetStatus(self, body: dict) -> dict:
        states = self.dataset(body).states
        return {"status": states.pop(0) if len(states) > 1 else states[0]}

    def ListDatasetFiles(self, body: dict) -> dict:
        files = self.dataset(body).versions[-1]
        listed = [{"name": name, "totalBytes": len(content)} for name, content in sorted(files.items())]
        return self.page("datasetFiles", listed, body)

    def page(self, key: str, items: list, body: dict) -> dict:
        size, start = min(self.page_size, body.get("pageSize", 20)), int(body.get("pageToken") or 0)
        more = {"nextPageToken": str(start + size)} if start + size < len(items) else {}
        return {key: items[start : start + size], **more}

    def DownloadDataset(self, body: dict) -> bytes:
        files = self.dataset(body).versions[-1]
        if body["fileName"] not in files:
            raise Refusal(404, f"Not found: {body['fileName']}")
        return files[body["fileName"]]

    def SaveKernel(self, body: dict) -> dict:
        versions = self.kernels.setdefault(body["slug"], [])
        versions.append(body)
        if self.next_session:
            self.sessions[body["slug"]] = self.next_session
        url = f"https://www.kaggle.com/code/{body['slug']}"
        return {"ref": body["slug"], "url": url, "versionNumber": len(versions), **self.push_reply}

    def session(self, body: dict) -> Session:
        name = f"{body['userName']}/{body['kernelSlug']}"
        if name not in self.sessions:
            raise Refusal(404, f"Not found: {name}")
        return self.sessions[name]

    def GetKernelSessionStatus(self, body: dict) -> dict:
        session = self.session(body)
        state = session.states.pop(0) if len(session.states) > 1 else session.states[0]
        return {"status": state, "failureMessage": session.failure}

    def ListKernelSessionOutput(self, body: dict) -> dict:
        session, kernel = self.session(body), f"{body['userName']}/{body['kernelSlug']}"
        files = [{"url": f"http://localhost/output/{kernel}/{quote(n)}", "fileName": n} for n in session.output]
        return {**self.page("files", files, body), "log": session.log}

    def StartSubmissionUpload(self, body: dict) -> dict:
        return self.StartBlobUpload({"name": body["fileName"]})

    def CreateSubmission(self, body: dict) -> dict:
        return self.submit(body, "Successfully submitted to Jaguar Re-ID")

    def CreateCodeSubmission(self, body: dict) -> dict:
        return self.submit(body, "Successfully submitted a version")

    def submit(self, body: dict, message: str) -> dict:
        self.submissions.append(body)
        return {"message": message, "ref": len(self.submissions)}

    def GetSubmissionLimits(self, body: dict) -> dict:
        return self.limits

    def GetSubmission(self, body: dict) -> dict:
        if not 0 < body["ref"] <= len(self.submissions):
            raise Refusal(404, f"Not found: {body['ref']}")
        return {**self.submission(body["ref"]), **(self.scores.pop(0) if len(self.scores) > 1 else self.scores[0])}

    def submission(self, ref: int) -> dict:
        told = {"ref": ref, "date": "2026-11-30T12:00:00Z", "fileName": "submission.csv", "status": "COMPLETE"}
        return {**told, "description": self.submissions[ref - 1]["submissionDescription"]}

    def ListSubmissions(self, body: dict) -> dict:
        latest_first = [self.submission(ref) for ref in range(len(self.submissions), 0, -1)]
        return self.page("submissions", [{**one, **self.scores[-1]} for one in latest_first], body)

    def ListKernels(self, body: dict) -> dict:
        found = [name for name in self.sessions if body["search"] in name]
        listed = [{"ref": name, "title": name, "lastRunTime": "2026-11-30T12:00:00Z"} for name in found]
        start = body["pageSize"] * (body.get("page", 1) - 1)
        return {"kernels": listed[start : start + body["pageSize"]]}

    # files

    def upload(self, asked: Asked) -> dict:
        _, _, token, _ = asked.path.split("/")
        name, content = self.blobs[token]
        if asked.headers.get("Content-Range", "").startswith("bytes */"):  # how much of it is there already?
            if content is None:
                raise Refusal(308, "Resume Incomplete")
        else:
            self.blobs[token] = (name, asked.body)
        return {}

    def download(self, asked: Asked) -> bytes:
        _, _, owner, slug, name = unquote(asked.path).split("/", 4)
        return self.sessions[f"{owner}/{slug}"].output[name]


def unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """An archive as the folder that Kaggle makes of it, anything else as it came."""
    if not name.endswith(".zip"):
        yield name, content
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for inner in archive.namelist():
            if not inner.endswith("/"):
                yield f"{name.removesuffix('.zip')}/{inner}", archive.read(inner)


HTML = b"<!DOCTYPE html><html><body>Something went wrong</body></html>"


class Handler(BaseHTTPRequestHandler):
    server: KaggleServer

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        asked = Asked(path.rpartition("/")[2], path, dict(self.headers), json.loads(self.read() or b"{}"))
        self.answer(asked, lambda: getattr(self.server, asked.name)(asked.body))

    def do_PUT(self) -> None:
        asked = Asked("upload", urlsplit(self.path).path, dict(self.headers), self.read())
        self.answer(asked, lambda: self.server.upload(asked))

    def do_GET(self) -> None:
        asked = Asked("download", urlsplit(self.path).path, dict(self.headers), None)
        self.answer(asked, lambda: self.server.download(asked))

    def read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def answer(self, asked: Asked, work: Any) -> None:
        with self.server.lock:
            self.server.requests.append(asked)
            how = self.server.failure(asked)
            try:
                if asked.path.startswith("/api/") and asked.name != "IntrospectToken":
                    self.server.check_credentials(asked)
                if isinstance(how, int):
                    raise Refusal(how, f"{asked.name} was told to fail")
                reply = work() if how in (None, "half") else how
            except Refusal as refusal:
                return self.send(refusal.status, {"code": refusal.status, "message": refusal.message})
        if how == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif how == "html":
            self.send(200, HTML)
        else:
            self.send(200, reply, missing=1000 if how == "half" else 0)

    def send(self, status: int, reply: dict | bytes, missing: int = 0) -> None:
        plain = isinstance(reply, bytes)
        content = reply if plain else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if plain else "application/json")
        self.send_header("Content-Length", str(len(content) + missing))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *told: object) -> None:
        pass


# the real client, led here


def hurried(every: float = 0.02, stale: float = 0.2, longest: float = 5.0, failures: int = 10) -> Patience:
    """What commands wait, where they take no word about it: not for hours, even if something is wrong."""
    return Patience(min(every, 0.05), stale, min(longest, 5.0), failures)


def kaggle_client_module(home: Path) -> ModuleType:
    """The client's module; what it reads of the environment when it is imported must not be the machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HOME", str(home)), ("KAGGLE_USERNAME", "u"), ("KAGGLE_KEY", "k")):
            patch.setenv(name, value)
        from kaggle.api import kaggle_api_extended
    return kaggle_api_extended


@contextmanager
def playing_kaggle(client: ModuleType, folder: Path) -> Iterator[KaggleServer]:
    """A server that the client of this process talks to; its home and scratch lie in the folder."""
    import urllib3  # comes with the client

    home, scratch = folder / "home", folder / "scratch"
    home.mkdir()
    scratch.mkdir()
    with pytest.MonkeyPatch.context() as patch, KaggleServer() as server:
        for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
            patch.delenv(name)
        patch.setattr(tempfile, "tempdir", str(scratch))
        for name, value in (("args", ["--local"]), ("config_dir", str(home)), ("config", str(home / "kaggle.json"))):
            patch.setattr(client.KaggleApi, name, value)
        # The client and urllib3 try again by themselves, after up to a minute; here they do so at once.
        patch.setattr(client, "time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None}))
        patch.setattr(urllib3.util.retry.Retry, "sleep", lambda self, response=None: None)
        for tool in (kaggle_client, kaggle_run):
            patch.setattr(tool, "Patience", hurried)
        for name, value in server.environment(home, scratch).items():
            patch.setenv(name, value)
        yield server


def session_output(working: Path, kernel: str = "final", **files: bytes) -> dict[str, bytes]:
    """Files by name as a session of now leaves them; more files, or other content, as keywords."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "working_folder", lambda: working)
        record = session.begin_kernel(kernel)
        wanted = {"submission.csv": b"row_id,similarity\n0,0.25\n1,1.0\n", "report.html": HTML, **files}
        wanted[f"runs/{kernel}/metrics.json"] = b"{}"
        for name, content in wanted.items():
            (working / name).parent.mkdir(parents=True, exist_ok=True)
            (working / name).write_bytes(content)
        session.end_kernel(record)
    left = {p.relative_to(working).as_posix(): p.read_bytes() for p in sorted(working.rglob("*")) if p.is_file()}
    shutil.rmtree(working)
    return left
