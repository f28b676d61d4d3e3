"""Input files that the provider has already."""

from models.statements import Statement

USABLE_UPLOADS = Statement(
    """
    SELECT sha256, url, extract(epoch FROM expires_at - now())::float8 AS lasts FROM uploads
    WHERE sha256 = ANY(%s) AND cdn_url = %s
    AND (expires_at IS NULL OR expires_at > now() + %s * interval '1 s')
    """,
    index="uploads_pkey",
)
KEEP_UPLOAD = Statement("""
    INSERT INTO uploads (sha256, cdn_url, url, content_type, bytes, expires_at)
    VALUES (%(sha256)s, %(cdn)s, %(url)s, %(content_type)s, %(bytes)s, now() + %(kept)s * interval '1 s')
    ON CONFLICT (sha256, cdn_url) DO UPDATE
    SET url = excluded.url, uploaded_at = now(), expires_at = excluded.expires_at
""")
