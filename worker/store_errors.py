"""What an object store's client says, in one sentence, and what to set about it."""

import re

HINTS = {
    r"169\.254\.169\.254|CredentialsNotLoaded|NoCredential": "there are no credentials: set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY",
    r"InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
    r"SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not fit, or AWS_REGION is another one",
    r"PermanentRedirect|AuthorizationHeaderMalformed|301 Moved": "the bucket is in another region: set AWS_REGION",
    r"NoSuchBucket|ContainerNotFound|bucket does not exist": "there is no such bucket; see STORAGE_URL",
    r"AccessDenied|403 Forbidden|AuthorizationFailure|AuthorizationPermissionMismatch": "these credentials may not "
    "write there: see the bucket's rights",
    r"Account must be specified": "set AZURE_STORAGE_ACCOUNT_NAME",
    r"Invalid Access Key": "AZURE_STORAGE_ACCOUNT_KEY is no key",
    r"service account|GCP credential|metadata\.google\.internal": "set GOOGLE_APPLICATION_CREDENTIALS (or "
    "GOOGLE_SERVICE_ACCOUNT) to the file of a service account",
    r"builder error": "its address is http: set AWS_ALLOW_HTTP=true (or AZURE_ALLOW_HTTP=true)",
    r"UnknownIssuer|invalid peer certificate|CertificateRequired": "its certificate is not trusted: set SSL_CERT_FILE",
    r"dns error|failed to lookup": "its name is not known: see AWS_ENDPOINT_URL, or AWS_REGION",
    r"ConnectionRefused|Connection refused": "nobody listens there: see AWS_ENDPOINT_URL",
    r"unsuccessful tunnel|ProxyAuthenticationRequired|proxy": "see HTTPS_PROXY and NO_PROXY",
}
"""What the client's words contain -> what is wrong, or to be set; the first that fits."""


def explain(error: BaseException) -> str:
    """One line, without the client's own inner workings; and what to set, where that is known."""
    text = str(error)
    said = text.strip().partition("\n")[0].removeprefix("Generic ")
    hint = next((hint for pattern, hint in HINTS.items() if re.search(pattern, text)), None)
    return f"{hint} ({said[:300]})" if hint else said[:400]
