"""What an object store's client says, in one sentence, and what to set about it."""

import re

import obstore

from core.errors import DarkroomError, DownloadError, FetchAgain, NotFound, StorageUnavailable, Unusable
from core.resource_errors import storage_trouble

VARIABLES = {
    "s3": {
        "credentials": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (pip install 'darkroom[aws]')",
        "endpoint": "AWS_ENDPOINT_URL, or AWS_REGION",
        "secret": "AWS_SECRET_ACCESS_KEY does not fit, or AWS_REGION is another one",
        "place": "bucket",
    },
    "az": {
        "credentials": "AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN",
        "endpoint": "AZURE_STORAGE_ACCOUNT_NAME, or AZURE_STORAGE_ENDPOINT",
        "secret": "AZURE_STORAGE_ACCOUNT_KEY does not fit AZURE_STORAGE_ACCOUNT_NAME",
        "place": "container",
    },
    "gs": {
        "credentials": "GOOGLE_APPLICATION_CREDENTIALS (or GOOGLE_SERVICE_ACCOUNT) to the file of a service account",
        "endpoint": "this machine's network, or HTTPS_PROXY",
        "secret": "the service account in GOOGLE_APPLICATION_CREDENTIALS is not known there",
        "place": "bucket",
    },
}
"""The scheme of a STORAGE_URL -> the words of its settings."""
NO_BUCKET = r"NoSuchBucket|ContainerNotFound|bucket does not exist"
"""How a store says that it is not the object which is missing."""
HINTS = {
    r"169\.254\.169\.254|metadata\.google\.internal": "there are no credentials: set {credentials}",
    r"dns error|failed to lookup": "its name is not known: see {endpoint}",
    r"ConnectionRefused|Connection refused": "nobody listens there: see {endpoint}",
    r"UnknownIssuer|invalid peer certificate|CertificateRequired": "its certificate is not trusted: set SSL_CERT_FILE",
    r"token request|CredentialsNotLoaded|NoCredential": "there are no credentials: set {credentials}",
    r"InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
    r"SignatureDoesNotMatch|AuthenticationFailed|invalid_grant": "{secret}",
    r"PermanentRedirect|AuthorizationHeaderMalformed|301 Moved": "the bucket is in another region: set AWS_REGION",
    NO_BUCKET: "there is no such {place}; see STORAGE_URL",
    r"AccessDenied|403 Forbidden|AuthorizationFailure|AuthorizationPermissionMismatch": "these credentials may not "
    "write there: see the {place}'s rights",
    r"Account must be specified": "set AZURE_STORAGE_ACCOUNT_NAME",
    r"Invalid Access Key": "AZURE_STORAGE_ACCOUNT_KEY is no key",
    r"parse source url": "its address is no URL: see {endpoint}",
    r"service account|GCP credential|[Uu]nable to (?:open|decode)": "set {credentials}",
    r"builder error": "its address is http: set AWS_ALLOW_HTTP=true",
    r"unsuccessful tunnel|ProxyAuthenticationRequired|proxy": "see HTTPS_PROXY and NO_PROXY",
}
"""What the client's words contain -> what is wrong, or to be set; the first that fits."""
ABOUT_ONE_OBJECT = re.compile(r"status code: 4(?!08|29)\d\d")
"""In the words of `obstore`: the store answered, and did not like this request."""
NO_TOKEN = "Error performing token request"  # noqa: S105  # in the same words: the store was not even asked


def explain(error: BaseException, url: str) -> str:
    """One line, without the client's own inner workings; and what to set at `url`, where that is known."""
    text = str(error)
    said = text.strip().partition("\n")[0].removeprefix("Generic ")
    hint = next((hint for pattern, hint in HINTS.items() if re.search(pattern, text)), None)
    words = VARIABLES.get(url.partition("://")[0], VARIABLES["s3"])
    return f"{hint.format(**words)} ({said[:300]})" if hint else said[:400]


def explain_refusal(error: Exception, url: str) -> DownloadError:
    """What an object store's refusal means: about all objects, or about this one."""
    text = explain(error, url)
    if isinstance(error, obstore.exceptions.InvalidPathError):
        return Unusable("storage_key_refused", text)
    if isinstance(error, (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)):
        return StorageUnavailable("credentials_refused", text)
    if isinstance(error, (obstore.exceptions.NotFoundError, FileNotFoundError)):
        return StorageUnavailable("bucket_missing", text)
    if isinstance(error, obstore.exceptions.GenericError) and _is_about_all(str(error)):
        return StorageUnavailable("credentials_refused" if "credential" in text.lower() else "unreachable", text)
    return (storage_trouble(error, "STORAGE_URL") if isinstance(error, OSError) else None) or storage_error(error, url)


def explain_read(error: Exception, key: str, url: str) -> DarkroomError:
    """The same of a read, to which a missing object is nothing unusual."""
    missing = isinstance(error, (obstore.exceptions.NotFoundError, FileNotFoundError))
    if missing and not re.search(NO_BUCKET, str(error)):
        return NotFound(f"There is no {key} in {url}.")
    return explain_refusal(error, url)


def explain_listing(error: Exception, url: str) -> StorageUnavailable:
    """The same of a listing, which is about no one object."""
    refusal = explain_refusal(error, url)
    if isinstance(refusal, StorageUnavailable):
        return refusal
    if re.search(NO_BUCKET, str(error)):
        return StorageUnavailable("bucket_missing", refusal.message)
    return StorageUnavailable("credentials_refused" if "403" in str(error) else "unreachable", refusal.message)


def storage_error(error: Exception, url: str) -> FetchAgain:
    """Trouble with one object, this time."""
    return FetchAgain("storage_error", explain(error, url))


def _is_about_all(said: str) -> bool:
    return NO_TOKEN in said or not ABOUT_ONE_OBJECT.search(said)
