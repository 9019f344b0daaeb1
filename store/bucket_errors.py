"""Explain failures of a bucket: obstore's messages and panics, and what to do about them. Imports no obstore.

Some of what the environment may hold makes obstore's compiled code panic, in a thread of its own and with pages of text; that
is looked for before obstore is asked. No text holds a value that may be secret.
"""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import urlsplit

from robozarr.schemas.errors import BucketError

__all__ = [
    "AGAIN",
    "TIMED_OUT",
    "check_endpoint",
    "check_environment",
    "explain",
    "is_panic",
    "is_web_page",
    "message_of",
    "to_be_asked_again",
]

AGAIN: Final = "run the same command again"
TIMED_OUT: Final = "kind: Timeout"
"""What obstore's debugging output contains after a time-out."""
ENDPOINT: Final = re.compile(r"https?://[^/@?#\s]+(/[^@?#\s]*)?")
IN_HEADERS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
WEB_PAGE: Final = re.compile(rb"(?i)(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html)\b", re.S)
ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT")


def check_endpoint(endpoint: str, called: str) -> None:
    """Raise BucketError unless a text is an endpoint; `called` says where it comes from."""
    try:
        good = ENDPOINT.fullmatch(endpoint) is not None and urlsplit(endpoint).port != 0
    except ValueError:  # a port that is no number, or too large
        good = False
    if not good:
        shown = re.split(r"[?#]", endpoint.rpartition("@")[2])[0]  # what stands before or behind it may be a password
        raise BucketError(
            f"{called}: {shown or '(nothing)'}: not an endpoint; give one that begins with http:// or https://, and has no "
            "user, no query, and a port from 1 to 65535 if any"
        )


def check_environment(url: str, endpoint: str | None) -> None:
    """Refuse settings that would crash obstore: invalid endpoints, and characters that no request can carry.

    Raises
    ------
    BucketError
        Naming the variable, never its value.
    """
    if not url.startswith("s3://"):
        return
    for name in ENDPOINTS:
        if name in os.environ and endpoint is None:
            check_endpoint(os.environ[name], f"{url}: {name} in the environment")
    for name in IN_HEADERS:
        if any(not " " <= character <= "~" for character in os.environ.get(name, "")):
            raise BucketError(
                f"{url}: {name} in the environment holds a line break, or another character that a request cannot carry; set "
                "it again without"
            )


def is_panic(exc: BaseException) -> bool:
    """Whether obstore's compiled code panicked: such errors are no ``Exception``, and of no importable type."""
    return type(exc).__name__ == "PanicException"


def is_web_page(data: bytes) -> bool:
    """Whether an object is a page that a proxy or a login put in its place.

    >>> is_web_page(b' <!DOCTYPE html><html>'), is_web_page(b'<?xml version="1.0"?><html>'), is_web_page(b'{"html": 1}')
    (True, True, False)
    """
    return WEB_PAGE.match(data[:1000]) is not None


def message_of(exc: BaseException) -> str:
    """The message of obstore without its debugging output."""
    return str(exc).partition("\n\nDebug source")[0]


def to_be_asked_again(exc: BaseException, what: str) -> bool:
    """Whether to repeat a failed request that obstore does not repeat itself and that may succeed later."""
    words = message_of(exc)
    if "RequestTimeout" in words or (what == "written" and TIMED_OUT in str(exc)):
        return True  # status 400 of a connection that stalled; and after so long obstore sends a signed request no more
    return re.search(r"status code|after \d+ retries|redirect", words) is None


def explain(url: str, endpoint: str | None, exc: BaseException) -> tuple[str, str]:
    """What an error of obstore means, and what to do about it."""
    words, debugging = message_of(exc), str(exc)
    code = re.search(r"<Code>(.*?)</Code>", words)
    said = re.search(r"<Message>(.*?)</Message>", words, re.S)
    status = re.search(r"status code: (\d+[^:<]*)", words)
    reason = ": ".join(found[1] for found in (code, said) if found) or (status[1].strip() if status else "")
    reason = " ".join((reason or words.rpartition(" - ")[2]).split())
    retries = re.search(r"after (\d+) retries", words)
    if retries:
        reason += f", after {retries[1]} retries"
    service = endpoint or "the service"
    if is_panic(exc):
        return f"obstore gave up ({reason})", "check the endpoint and the AWS_… variables of the environment"
    if "NoSuchBucket" in words:
        return f"there is no bucket {url.split('/')[2]}", "make it, or check its name and the endpoint"
    if (file := re.search(r"Failed to read token file '?([^':]*)", words)) is not None:
        return f"the token file {file[1]} cannot be read ({reason})", "check the path, and the rights of this process"
    metadata = any(host in words for host in ("169.254.169.254", "metadata.google.internal", "/latest/api/token"))
    named = re.search(r"(?i)credential|access_?key", re.sub(r"https?://\S+|s3://\S+", "", words))
    if metadata or (status is None and named):
        names = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if url.startswith("s3") else "GOOGLE_APPLICATION_CREDENTIALS"
        return "no credentials were found", f"set {names} in the environment of this process and of the workers"
    if code is not None and code[1] in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return reason, "set AWS_REGION to the bucket's region"
    if "redirect" in words:
        return f"{service} redirects to another address", "check --endpoint-url, and set AWS_REGION to the bucket's region"
    if status is not None and status[1].startswith(("401", "403")):
        return f"access is refused ({reason})", "check the credentials and their rights in this bucket"
    if re.search(r"<!doctype html|<html", words, re.I):
        return (
            f"{service} answers with a web page ({status[1].strip() if status else 'HTML'})",
            "check --endpoint-url and proxies",
        )
    if re.search("InvalidContentType|CorruptMessage", debugging):
        return f"{service} does not use TLS", "give the endpoint with http:// if it has none, or check its port"
    if (
        certificate := re.search(r"InvalidCertificate\(\s*(\w+)|(UnknownIssuer|NotValidForName|CertExpired)", debugging)
    ) is not None:
        why = certificate[1] or certificate[2]
        return (
            f"the certificate of {service} is not trusted ({why})",
            "check the endpoint's name, or set SSL_CERT_FILE to its authority",
        )
    if re.search(r"Got invalid \w+ response|non-partial response|Header missing|extract metadata", words):
        reason = reason.removeprefix("Generic S3 error: ").removeprefix("Generic GCS error: ")
        return f"{service} answers as no service that speaks S3 does ({reason})", "check --endpoint-url, proxies and logins"
    if "object with invalid path" in words:
        return reason, "rename or remove that object, or give another prefix"
    if "error sending request" in words:
        return f"{service} does not answer ({reason})", "check --endpoint-url, the network and the time-outs of proxies"
    return reason, AGAIN
