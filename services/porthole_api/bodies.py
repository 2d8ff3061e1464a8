# SPDX-License-Identifier: Apache-2.0
"""Request bodies: read within a limit, parsed strictly, checked against a JSON schema.

Why: a malformed body is refused here, with a message that says what is wrong, so the handlers see only well-formed
bodies. Called by the handlers; the schemas are in :mod:`porthole_api.schemas`.
"""

import json
from typing import Any

import jsonschema
import webob
from jsonschema.exceptions import best_match
from webob import exc

from porthole_common import errors

# The longest well-formed body has 100 bytes. A longer body than this limit is refused unread; it guards the memory.
MAX_BODY_BYTES = 64 * 1024
TOO_LONG = f"The request body is too long: the limit is {MAX_BODY_BYTES} bytes."
# The limit needs a length that is known at the start.
NO_CHUNKS = "A chunked body is not accepted: send a Content-Length."
# A message quotes the body; this length is enough to recognise it.
_MAX_MESSAGE_CHARS = 300


def read_json(request: webob.Request) -> Any:
    """Return the body as parsed JSON.

    Only JSON of RFC 8259, in UTF-8: no NaN, no duplicate key in one object. A request without
    ``Content-Type: application/json`` is refused: a browser sends other types to a foreign site without asking it.

    :raises RequestInvalid: when the body is too long, is not JSON, has another type, or has no length.
    :raises HTTPRequestTimeout: when the body does not arrive in time.
    """
    if request.content_type.lower() != "application/json":
        raise errors.RequestInvalid("The request needs a body with Content-Type: application/json.")
    body = _read(request)
    if not body:
        raise errors.RequestInvalid("The request has no body.")
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_build_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise errors.RequestInvalid("Malformed request body: it is nested too deeply.") from None
    except UnicodeDecodeError as error:
        raise errors.RequestInvalid(f"Malformed request body: not UTF-8 at byte {error.start}.") from None
    except ValueError as error:
        raise errors.RequestInvalid(_shorten(f"Malformed request body: {error}.")) from None


def validate(value: Any, validator: jsonschema.protocols.Validator, root: str = "body") -> None:
    """Check ``value`` against a schema.

    :raises RequestInvalid: when ``value`` does not match; the text names the field.
    """
    try:
        error = best_match(validator.iter_errors(value))
        if error is None:
            return
        field = ".".join(str(part) for part in error.absolute_path) or root
        message = f"Invalid input for {field}: {error.message}"
    except RecursionError:
        message = "Malformed request body: it is nested too deeply."
    raise errors.RequestInvalid(_shorten(message))


def _read(request: webob.Request) -> bytes:
    """Return the bytes that Content-Length announces."""
    if "HTTP_TRANSFER_ENCODING" in request.environ:
        raise errors.RequestInvalid(NO_CHUNKS)
    text = request.environ.get("CONTENT_LENGTH") or "0"
    if not (text.isascii() and text.isdigit()):
        raise errors.RequestInvalid("The Content-Length is not a number.")
    # A length with too many digits is refused before int() parses it.
    if len(text.lstrip("0")) > len(str(MAX_BODY_BYTES)) or int(text) > MAX_BODY_BYTES:
        raise errors.RequestInvalid(TOO_LONG)
    length = int(text)
    try:
        body: bytes = request.environ["wsgi.input"].read(length)
    except TimeoutError:
        raise exc.HTTPRequestTimeout("The request body did not arrive in time.") from None
    except OSError:
        raise errors.RequestInvalid("The connection broke before the whole request body arrived.") from None
    if len(body) < length:
        raise errors.RequestInvalid(f"The request body ended after {len(body)} of {length} bytes.")
    return body


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"the key {key!r} is duplicated in one object")
        value[key] = item
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _shorten(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE_CHARS else message[:_MAX_MESSAGE_CHARS] + "..."
