"""Credentials of S3 from the profile files of Amazon's own tools, which the store's client does not read."""

from importlib.util import find_spec
from typing import Any

from core.errors import SettingsError
from core.settings import AmazonSettings, load


def find_profile() -> Any:
    """Who gives the store's client its credentials, and renews them; None where it finds them by itself.

    Keys in the environment come first, as everywhere. A profile may hold keys, a role, a sign-on or a program.

    Raises:
        SettingsError: the profile cannot be used.
    """
    settings = load(AmazonSettings)
    if settings.aws_access_key_id or not (settings.aws_profile or settings.has_profile_file):
        return None
    if find_spec("boto3") is None:
        if settings.aws_profile is None:
            return None  # the file may be somebody else's, and this machine have a role
        raise SettingsError("AWS_PROFILE needs boto3, which reads profiles: pip install 'darkroom[aws]'")
    return _read_profile(settings.aws_profile)


def _read_profile(name: str | None) -> Any:
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    shown = f"AWS_PROFILE={name}" if name else "the default profile of AWS"
    try:
        session = boto3.Session(profile_name=name)
        if session.get_credentials() is None:
            raise SettingsError(f"{shown} holds no credentials; see ~/.aws/credentials and ~/.aws/config")
        return Boto3CredentialProvider(session)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"{shown} cannot be used: {error}") from None
