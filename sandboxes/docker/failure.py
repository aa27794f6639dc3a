"""Tell a failed engine from a failed request, and a failed request from a spec that cannot be had.

The engine's sentences are matched where its status code is not enough. Cases this gets wrong on purpose: an
engine behind a proxy that answers 5xx is taken for a failed start, and one that is merely slow for hung.
"""

from __future__ import annotations

from typing import Final

import docker.errors
import requests.exceptions

from sandboxes.errors import (
    EngineLost,
    EngineUnresponsive,
    SandboxError,
    SandboxStartFailed,
    SandboxUnavailable,
)

_NOT_FOUND: Final = 404
_SHOWN_CHARACTERS: Final = 400

_REFUSALS: Final = (
    (
        "executable file not found",
        "the image has no python3",
        "use an image with Python 3.8 or newer, such as one made by images/build",
    ),
    ("unknown or invalid runtime", "the engine does not have this runtime", "see `remit doctor`"),
    ("Unknown runtime specified", "the engine does not have this runtime", "see `remit doctor`"),
    ("no such file or directory", "the engine does not find a path of this host", "see `remit doctor`"),
    ("bind source path does not exist", "the engine does not see the paths of this host", None),
)


class PlaceUnseen(SandboxUnavailable):
    """The engine cannot use paths of this host, so the workspace has to be copied."""


def classify(error: Exception, *, during: str) -> SandboxError:
    """Return what a failure of the SDK means for a sandbox."""
    if isinstance(error, requests.exceptions.Timeout):
        return EngineUnresponsive(f"the engine did not answer in time: {during}")
    if isinstance(error, docker.errors.ImageNotFound):
        return image_missing(_text(error))
    if isinstance(error, docker.errors.APIError):
        return _refused(error, during=during)
    if isinstance(error, (requests.exceptions.RequestException, docker.errors.DockerException, OSError)):
        return EngineLost(
            f"the engine cannot be reached: {during}: {_text(error)}",
            hint="is it running, and may this user use it? See DOCKER_HOST and `remit doctor`",
        )
    return SandboxStartFailed(f"{during}: {_text(error)}")


def image_missing(said: str) -> SandboxUnavailable:
    """Return the refusal for an image that the engine does not have."""
    return SandboxUnavailable(
        f"the engine does not have the image: {said}",
        hint="make it with images/build, or docker pull; remit never pulls by itself",
    )


def _refused(error: docker.errors.APIError, *, during: str) -> SandboxError:
    said = str(error.explanation or error)[:_SHOWN_CHARACTERS]
    if error.status_code == _NOT_FOUND and "image" in said.lower():
        return image_missing(said)
    if "failed to mount local volume" in said or "bind source path does not exist" in said:
        return PlaceUnseen(f"the engine cannot mount the workspace: {said}")
    for sign, sentence, hint in _REFUSALS:
        if sign in said:
            return SandboxUnavailable(f"{sentence}: {said}", hint=hint)
    return SandboxStartFailed(f"{during}: {said}")


def _text(error: Exception) -> str:
    return str(error)[:_SHOWN_CHARACTERS]
