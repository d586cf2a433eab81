"""Talking to an S3 server: keys, listing, and errors as one sentence each. No message holds a key.

HCP's bucket answers those who accepted its terms: https://balsa.wustl.edu, project HCP_YA, "Get/Reset AWS S3 Access".
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.config
import botocore.exceptions as exceptions

from iqt.cohort.places import AbsentError, s3_url
from iqt.config import S3
from iqt.errors import StopError

WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthorizationHeaderMalformed"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
ABSENT = {"404", "NoSuchKey", "NotFound"}
SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
CHANGED = {"412", "PreconditionFailed", "416", "InvalidRange"}
RESET = (
    "HCP's are made at https://balsa.wustl.edu, project HCP_YA, 'Get/Reset AWS S3 Access' (a reset ends the old pair); "
    "put them into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or an AWS profile"
)


class ChangedError(Exception):
    """The object is no longer the one that a download began with."""


def connect(settings: S3) -> Any:
    """A boto3 client of the bucket's server; it repeats failed and throttled requests with growing, random pauses.

    Raises:
        StopError: there are no keys.
    """
    config = botocore.config.Config(
        signature_version=botocore.UNSIGNED if settings.anonymous else None,
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        max_pool_connections=max(10, settings.parallel),
        connect_timeout=10,
        read_timeout=60,
        response_checksum_validation="when_required",
        user_agent_appid="iqt",
    )
    options = {"region_name": settings.region, "endpoint_url": settings.endpoint, "config": config}
    with explained(settings, ""):
        return _session(settings).client("s3", **options)


def head(client: Any, settings: S3, key: str) -> dict:
    """`ETag`, `ContentLength` and more of an object.

    Raises:
        AbsentError: there is none.
        StopError: the server refuses or fails; the message says why.
    """
    with explained(settings, key):
        try:
            return client.head_object(Bucket=settings.bucket, Key=key, ChecksumMode="ENABLED")
        except exceptions.ClientError as error:
            if _status(error) != 403:
                raise
            client.get_object(Bucket=settings.bucket, Key=key, Range="bytes=0-0")  # a HEAD's answer gives no reason
            raise


def list_folders(settings: S3) -> list[str]:
    """Names of the folders right below the prefix."""
    prefix = f"{settings.prefix.strip('/')}/" if settings.prefix else ""
    pages = _pages(settings, Prefix=prefix, Delimiter="/")
    return [item["Prefix"].rstrip("/").rpartition("/")[2] for page in pages for item in page.get("CommonPrefixes", [])]


def list_keys(settings: S3, prefix: str) -> list[str]:
    """Every key below `prefix` and the bucket's own prefix, without the latter."""
    start = "".join(f"{part.strip('/')}/" for part in (settings.prefix, prefix) if part)
    own = len(f"{settings.prefix.strip('/')}/") if settings.prefix else 0
    keys = [item["Key"] for page in _pages(settings, Prefix=start) for item in page.get("Contents", [])]
    elsewhere = next((key for key in keys if not key.startswith(start)), None)
    if elsewhere is not None:
        raise StopError(f"s3://{settings.bucket}: lists {elsewhere!r}, which is not below {start!r} as was asked")
    return [key[own:] for key in keys]


def check_access(settings: S3) -> None:
    """StopError with the reason where the bucket cannot be read at all."""
    with explained(settings, ""):
        connect(settings).list_objects_v2(Bucket=settings.bucket, Prefix=settings.prefix, MaxKeys=1)


@contextlib.contextmanager
def explained(settings: S3, key: str) -> Iterator[None]:
    """Turn botocore's errors into AbsentError, ChangedError, or a StopError that says what to do."""
    where = s3_url(settings.model_copy(update={"prefix": ""}), key)
    server = settings.endpoint or f"Amazon S3 ({settings.region})"
    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(error, where, settings) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise _no_keys(settings) from None
    except exceptions.ProfileNotFound:
        raise _no_keys(settings) from None
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise StopError(
            f"{where}: {server} cannot be reached ({type(error).__name__}, after {settings.attempts} attempts); check "
            "the network, and start again to go on where it stopped"
        ) from None
    except exceptions.BotoCoreError as error:
        raise StopError(
            f"{where}: {type(error).__name__}; check the section s3 of the source and its profile"
        ) from None


def _session(settings: S3) -> boto3.Session:
    """A session with keys from the environment or a profile; it looks nowhere else, such as in a cloud's metadata."""
    if settings.anonymous:
        return boto3.Session()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    key, secret, token = (os.environ.get(name) for name in names)
    for name, value in zip(names, (key, secret, token), strict=True):
        if value and value != value.strip():
            raise StopError(
                f"{name}: ends or begins with a blank or a line end, so it is not the key that was copied; set it "
                "again without"
            )
    if key and secret:
        return boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token)
    if key or secret:
        raise _no_keys(settings)
    profile = _profile(settings)
    if profile not in boto3.Session().available_profiles:
        raise _no_keys(settings)
    session = boto3.Session(profile_name=profile)
    if session.get_credentials() is None:
        raise _no_keys(settings)
    return session


def _pages(settings: S3, **options: Any) -> Iterator[dict]:
    client = connect(settings)
    with explained(settings, options["Prefix"]):
        yield from client.get_paginator("list_objects_v2").paginate(Bucket=settings.bucket, **options)


def _status(error: exceptions.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _refused(error: exceptions.ClientError, where: str, settings: S3) -> Exception:
    code, status = error.response.get("Error", {}).get("Code", ""), _status(error)
    if code == "NoSuchBucket":
        return StopError(f"s3://{settings.bucket}: no such bucket; check the source's s3.bucket and s3.endpoint")
    if code in ABSENT:
        return AbsentError(f"{where}: no such object")
    if code in CHANGED:
        return ChangedError(where)
    if code in WRONG_KEYS:
        return StopError(
            f"{where}: the server does not know the AWS keys ({code}), they are wrong or were reset; {RESET}"
        )
    if code in EXPIRED:
        return StopError(f"{where}: the AWS keys have expired ({code}); {RESET}")
    if code in SKEWED:
        return StopError(
            f"{where}: this machine's clock is off, so the server refuses its signatures ({code}); set the clock (now "
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC), and start again"
        )
    if status == 403 and settings.anonymous:
        return StopError(
            f"{where}: access denied without keys (403 {code}); is the dataset public, and its name right?"
        )
    if status == 403:
        return StopError(
            f"{where}: access denied (403 {code}); either the data use terms have not been accepted for these keys, or "
            f"the keys do not belong to this bucket; {RESET}"
        )
    return StopError(
        f"{where}: the server answers {status} {code} after {settings.attempts} attempts; start again later to go on "
        "where it stopped"
    )


def _profile(settings: S3) -> str:
    return settings.profile or os.environ.get("AWS_PROFILE") or "default"


def _no_keys(settings: S3) -> StopError:
    return StopError(
        f"s3://{settings.bucket}: no AWS keys: neither AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY in the "
        f"environment, nor a profile named {_profile(settings)} in ~/.aws; {RESET}"
    )
