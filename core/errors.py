"""Every error darkroom raises on purpose, as one tree; a leaf says what the caller should do.

DarkroomError
├── UserError                 tell the person in one sentence, exit 2, change nothing
│   ├── SettingsError         a setting is missing or wrong
│   ├── ManifestError         lines of a manifest are faulty; carries them all
│   ├── UnfitInput            a file is no input that the model can be given
│   ├── DatabaseError         no database there, or one without our schema
│   ├── NotFound              no such batch, file or request
│   ├── Pruned                it was there, and is no longer kept
│   └── Conflict              it is not in a state for that
├── SignatureError            do not believe this delivery: answer 401
├── KeysUnavailable           cannot judge this delivery: answer 503, so that it comes again
├── ProviderError             the provider's queue did not do what we asked
│   ├── Unsent                nothing left this machine: send it again
│   ├── UnknownOutcome        it may have been accepted: never send it again by itself
│   ├── Refused               the provider said no to this request: the answer is final
│   ├── AccountPaused         the provider said no to the account: stop submitting
│   ├── TryLater              a question (not a submit) went unanswered: ask again
│   │   └── TooLarge          its answer is larger than we take: ask for less
│   └── Gone                  the provider no longer has it
└── DownloadError             one image could not be stored
    ├── FetchAgain            fetch it again while that may help
    ├── StorageUnavailable    the trouble is ours: pause the lane, use up no try
    └── Unusable              what came is no image we may keep

The docstring of a leaf is its default message.
"""


class DarkroomError(Exception):
    """Something went wrong in darkroom."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class UserError(DarkroomError):
    """This cannot be done as asked."""


class SettingsError(UserError):
    """A setting is missing or wrong."""

    def __init__(self, message: str | None = None) -> None:
        # it may quote what was given, which may hold anything; it is one line all the same
        shown = "".join(character if character.isprintable() else "\ufffd" for character in message or "")
        super().__init__(shown or None)


class ManifestError(UserError):
    """The manifest has faulty lines."""


class UnfitInput(UserError):
    """The file cannot be sent as an input."""

    def __init__(self, message: str, *, convertible: bool = False) -> None:
        """`convertible`: it holds an image all the same, which could be sent as another kind of file."""
        super().__init__(message)
        self.convertible = convertible


class DatabaseError(UserError):
    """The database cannot be used."""


class NotFound(UserError):
    """There is no such thing."""


class Pruned(UserError):
    """The batch is pruned: its edits are no longer kept."""


class Conflict(UserError):
    """This cannot be done to it as it stands."""


class SignatureError(DarkroomError):
    """The delivery carries no valid signature."""


class KeysUnavailable(DarkroomError):
    """The provider's signing keys cannot be had right now."""


class ProviderError(DarkroomError):
    """The provider's queue did not do what was asked."""


class Unsent(ProviderError):
    """The request never left this machine."""


class UnknownOutcome(ProviderError):
    """The request may or may not have been accepted."""


class Refused(ProviderError):
    """The provider refused the request."""

    def __init__(self, status: int, type_: str, message: str) -> None:
        super().__init__(f"{status} {type_}: {message}")
        self.status, self.type, self.message = status, type_, message


class AccountPaused(ProviderError):
    """The provider refuses the account for now."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason, self.message = reason, message

    @property
    def advice(self) -> str:
        """What a person can do about it, in a sentence."""
        return {
            "invalid_key": "Set FAL_KEY (or FAL_KEY_FILE) to a key that is valid.",
            "locked": "Look at the account's balance and keys at fal.ai/dashboard.",
        }.get(self.reason, "Try again in a minute.")


class TryLater(ProviderError):
    """The provider did not answer the question."""


class TooLarge(TryLater):
    """The answer is larger than is taken."""


class Gone(ProviderError):
    """The provider no longer has the request."""


class DownloadError(DarkroomError):
    """An image could not be stored."""

    def __init__(self, type_: str, message: str) -> None:
        super().__init__(f"{type_}: {message}")
        self.type, self.message = type_, message


class FetchAgain(DownloadError):
    """The image may come whole another time."""

    def __init__(self, type_: str, message: str, *, retry_after: float = 0.0) -> None:
        """`retry_after`: seconds for which the file's host asks to be left alone."""
        super().__init__(type_, message)
        self.retry_after = retry_after


class StorageUnavailable(DownloadError):
    """No image can be stored for now, whichever it is."""


class Unusable(DownloadError):
    """What came is no image that may be kept."""
