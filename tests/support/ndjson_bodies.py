"""How schemathesis sends a body of lines; it loads this file by itself."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_lines(context: schemathesis.SerializationContext, value: object) -> bytes:
    """The body is a text in the document; here it is one."""
    return value.encode(errors="surrogatepass") if isinstance(value, str) else repr(value).encode()
