"""Sign a payload so that its type is signed with it (DSSE 1.0)."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from executor.audit.signer import Signer, VerifierKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 64 * 1024 * 1024


class Signature(BaseModel):
    """One signature of an envelope; ``keyid`` is a hint and proves nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keyid: str = Field(default="", description="Hex SHA-256 of the public key.")
    sig: str = Field(description="Base64 of the Ed25519 signature over the pre-authentication encoding.")


class Envelope(BaseModel):
    """A signed payload as it is kept in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    payload: str = Field(description="Base64 of the payload's bytes.")
    payload_type: Annotated[str, Field(alias="payloadType", description="What the payload is.")]
    signatures: tuple[Signature, ...] = Field(description="At least one.", min_length=1, max_length=16)

    @property
    def bytes(self) -> bytes:
        """The payload's bytes.

        Raises:
            ValueError: The payload is not base64.
        """
        try:
            return base64.b64decode(self.payload, validate=True)
        except binascii.Error as error:
            raise ValueError("the payload is not base64") from error

    def signed_by(self, key: VerifierKey) -> bool:
        """Tell whether one of the signatures is this key's.

        Raises:
            ValueError: The payload is not base64.
        """
        message = pre_authentication_encoding(self.payload_type, self.bytes)
        return any(key.verifies(message, _decoded(signature.sig)) for signature in self.signatures)


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed (DSSE protocol, ``PAE``)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_payload(payload: bytes, signer: Signer, *, payload_type: str = PAYLOAD_TYPE) -> dict[str, object]:
    """Return the envelope of a payload as a JSON object."""
    signature = signer.sign(pre_authentication_encoding(payload_type, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [
            {"keyid": sha256(signer.public).hexdigest(), "sig": base64.b64encode(signature).decode()}
        ],
    }


def parse_envelope(data: bytes) -> Envelope:
    """Read an envelope. The signature is not checked here.

    Raises:
        ValueError: It is not one.
    """
    try:
        return Envelope.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(f"not a DSSE envelope: {error.errors(include_input=False)[0]['msg']}") from error


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
