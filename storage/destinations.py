"""Where else backups lie: another folder, or a bucket of anything that speaks S3."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_CHUNK = 1 << 20
_PART = ".part"
_CONNECT, _READ = 10, 60  # seconds that a bucket has to answer
_OPTIONS = {"endpoint", "region"}


class DestinationError(Exception):
    """It cannot be used now, or what lies there is not what was sent; the message holds no
    secrets."""


@dataclass(frozen=True, slots=True)
class Sum:
    """What a file is known by."""

    size: int
    sha256: str


class Destination(ABC):
    """Files by name, each as a whole. All may raise DestinationError."""

    address: str
    """Without secrets."""

    @abstractmethod
    def put(self, path: str, name: str) -> None:
        """Store the file in the place of what has this name. Returns once what was read back from
        there has its size and SHA-256."""

    @abstractmethod
    def names(self) -> dict[str, int]:
        """The files that are there, each with its size."""

    @abstractmethod
    def fetch(self, name: str, path: str) -> None:
        """Bring one here as a new private file, which is not yet durable; nothing of it if it does
        not come whole."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Harmless if it is not there."""


def open_destination(url: str, key: str = "", secret: str = "") -> Destination:
    """A folder's path, or `s3://bucket/prefix?endpoint=https://…&region=…`; nothing is asked yet.
    Without key and secret, those of boto3's usual chain. ValueError says what is wrong without
    repeating the address."""
    if "://" not in url:
        return FolderDestination(os.path.abspath(os.path.expanduser(url)))
    scheme, _, rest = url.partition("://")
    if scheme.lower() != "s3":
        raise ValueError("a second destination is a folder, or begins with s3://")
    try:
        parts = urlsplit(f"s3://{rest}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        raise ValueError("the address of the bucket cannot be read") from None
    if parts.username or parts.password or "@" in parts.netloc:
        raise ValueError("the key and the secret of a bucket do not belong into its address")
    if unknown := sorted(set(options) - _OPTIONS):
        raise ValueError(f"unknown option in the address of the bucket: {unknown[0][:40]!a}")
    if not parts.netloc or parts.fragment:
        raise ValueError("the address names no bucket")
    endpoint = options.get("endpoint", "")
    if endpoint and not endpoint.startswith(("https://", "http://")):
        raise ValueError("the endpoint of the bucket has to begin with https:// or http://")
    prefix = unquote(parts.path).strip("/")
    return BucketDestination(
        parts.netloc, f"{prefix}/" if prefix else "", endpoint, options.get("region", ""), key,
        secret,
    )  # fmt: skip


def sum_of(path: str) -> Sum:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Sum(size, digest.hexdigest())


def _written(path: str) -> IO[bytes]:
    """A new private file: never through a link, never in the place of another."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


@contextmanager
def _whole(path: str) -> Iterator[IO[bytes]]:
    """A new private file that goes away with an error."""
    with _written(path) as file:
        try:
            yield file
            file.flush()  # the disk may be full only now
        except BaseException:
            os.unlink(path)
            raise


class FolderDestination(Destination):
    def __init__(self, folder: str) -> None:
        self.address = folder
        self._folder = Path(folder)

    def put(self, path: str, name: str) -> None:
        target = self._folder / name
        half = target.with_name(name + _PART)
        with self._said():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            half.unlink(missing_ok=True)  # of one that was killed
            try:
                with open(path, "rb") as source, _written(str(half)) as file:
                    while chunk := source.read(_CHUNK):
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                if sum_of(str(half)) != sum_of(path):
                    raise DestinationError("what was read back is not what was written")
                half.rename(target)
            except BaseException:
                half.unlink(missing_ok=True)
                raise
            directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def names(self) -> dict[str, int]:
        with self._said():
            if not self._folder.exists():
                return {}
            with os.scandir(self._folder) as found:
                return {
                    one.name: one.stat(follow_symlinks=False).st_size
                    for one in found
                    if one.is_file(follow_symlinks=False)
                }

    def fetch(self, name: str, path: str) -> None:
        with self._said(), open(self._folder / name, "rb") as source, _whole(path) as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)

    def delete(self, name: str) -> None:
        with self._said():
            (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationError(f"the folder cannot be used: {error.strerror}") from None


class BucketDestination(Destination):
    def __init__(
        self, bucket: str, prefix: str, endpoint: str, region: str, key: str, secret: str
    ) -> None:
        where = f"?endpoint={quote(endpoint, safe=':/')}" if endpoint else ""
        self.address = f"s3://{bucket}/{prefix}{where}"
        self._bucket, self._prefix = bucket, prefix
        self._whom = (endpoint or None, region or None, key or None, secret or None)

    def put(self, path: str, name: str) -> None:
        from boto3.s3.transfer import TransferConfig

        alone = TransferConfig(use_threads=False)  # one piece at a time in memory
        with self._client() as client:
            client.upload_file(path, self._bucket, self._prefix + name, Config=alone)
            # Read back: not every server computes a checksum that could be asked for.
            digest, size = hashlib.sha256(), 0
            for chunk in self._read(client, name):
                digest.update(chunk)
                size += len(chunk)
        if Sum(size, digest.hexdigest()) != sum_of(path):
            raise DestinationError("what was read back is not what was sent")

    def names(self) -> dict[str, int]:
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            return {
                one["Key"].removeprefix(self._prefix): int(one["Size"])
                for page in pages
                for one in page.get("Contents", ())
            }

    def fetch(self, name: str, path: str) -> None:
        with self._client() as client, _whole(path) as file:
            for chunk in self._read(client, name):
                file.write(chunk)

    def delete(self, name: str) -> None:
        with self._client() as client:
            client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def _read(self, client: Any, name: str) -> Iterator[bytes]:
        found = client.get_object(Bucket=self._bucket, Key=self._prefix + name)
        yield from found["Body"].iter_chunks(_CHUNK)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield _client_of(*self._whom)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "an error"))[:60]
            raise DestinationError(f"the bucket answers {code}") from None
        except (BotoCoreError, Boto3Error) as error:  # their texts may repeat an address
            raise DestinationError(f"the bucket cannot be asked ({type(error).__name__})") from None
        except OSError as error:
            raise DestinationError(f"a file cannot be used: {error.strerror}") from None


@lru_cache(maxsize=4)
def _client_of(
    endpoint: str | None, region: str | None, key: str | None, secret: str | None
) -> Any:
    """Any thread may use it, and making one takes long; to import boto3, too, so that is done where
    a bucket is asked."""
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        connect_timeout=_CONNECT, read_timeout=_READ, retries={"max_attempts": 2},
        # Else it sends what servers other than Amazon's may not understand.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )  # fmt: skip
    return Session().client(
        "s3", config=config, endpoint_url=endpoint, region_name=region, aws_access_key_id=key,
        aws_secret_access_key=secret,
    )  # fmt: skip
