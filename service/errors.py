"""What a caller or operator can cause, each with its HTTP status and its code on the wire.

The messages are written for the caller: they name the field and the bound, and never hold a
path, a key, a trace or any of the caller's data.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar


class RefineError(Exception):
    """Something that is answered with a sentence, a place in the request, and a code."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "unexpected"

    def __init__(self, message: str, *, path: str = "$", retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.retry_after_s = retry_after_s


class BadRequest(RefineError):
    status = HTTPStatus.BAD_REQUEST
    code = "bad-request"


class ValidationFailed(RefineError):
    status = HTTPStatus.BAD_REQUEST
    code = "validation-failed"


class ImageInvalid(RefineError):
    status = HTTPStatus.BAD_REQUEST
    code = "image-invalid"


class ImageTooLarge(RefineError):
    status = HTTPStatus.BAD_REQUEST
    code = "image-too-large"


class AccessDenied(RefineError):
    status = HTTPStatus.UNAUTHORIZED
    code = "access-denied"


class OriginRefused(RefineError):
    """A page of another site asked, with its visitor's browser."""

    status = HTTPStatus.FORBIDDEN
    code = "access-denied"


class NotFound(RefineError):
    status = HTTPStatus.NOT_FOUND
    code = "not-found"


class MethodNotAllowed(RefineError):
    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method-not-allowed"


class BodyTooLarge(RefineError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "body-too-large"


class UnsupportedMediaType(RefineError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported-media-type"


class GenerationFailed(RefineError):
    """One request's generation failed; the service and its neighbours go on."""

    code = "generation-failed"


class _TryLater(RefineError):
    """The request was fine and may be sent again after `retry_after_s`."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, message: str, *, path: str = "$", retry_after_s: int | None = 1) -> None:
        super().__init__(message, path=path, retry_after_s=retry_after_s)


class RateLimited(_TryLater):
    """One caller asks for more than its share; others are served."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "rate-limited"


class QueueFull(_TryLater):
    code = "overloaded"


class OutOfMemory(QueueFull):
    """The device has no memory for this picture beside the others, or none at all."""

    reason: ClassVar[str] = "out-of-memory"


class EngineStarting(_TryLater):
    code = "starting"


class EngineRestarting(_TryLater):
    code = "engine-restarting"


class Draining(_TryLater):
    code = "draining"


class DeadlineExceeded(RefineError):
    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "deadline-exceeded"
