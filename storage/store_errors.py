"""What an object store's client says, in one sentence, and what to set about it."""

import re

VARIABLES = {
    "s3": {
        "credentials": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
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
HINTS = {
    r"169\.254\.169\.254|metadata\.google\.internal": "there are no credentials: set {credentials}",
    r"dns error|failed to lookup": "its name is not known: see {endpoint}",
    r"ConnectionRefused|Connection refused": "nobody listens there: see {endpoint}",
    r"UnknownIssuer|invalid peer certificate|CertificateRequired": "its certificate is not trusted: set SSL_CERT_FILE",
    r"token request|CredentialsNotLoaded|NoCredential": "there are no credentials: set {credentials}",
    r"InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
    r"SignatureDoesNotMatch|AuthenticationFailed|invalid_grant": "{secret}",
    r"PermanentRedirect|AuthorizationHeaderMalformed|301 Moved": "the bucket is in another region: set AWS_REGION",
    r"NoSuchBucket|ContainerNotFound|bucket does not exist": "there is no such {place}; see STORAGE_URL",
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


def explain(error: BaseException, url: str) -> str:
    """One line, without the client's own inner workings; and what to set at `url`, where that is known."""
    text = str(error)
    said = text.strip().partition("\n")[0].removeprefix("Generic ")
    hint = next((hint for pattern, hint in HINTS.items() if re.search(pattern, text)), None)
    words = VARIABLES.get(url.partition("://")[0], VARIABLES["s3"])
    return f"{hint.format(**words)} ({said[:300]})" if hint else said[:400]
