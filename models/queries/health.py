"""What health checks, `darkroom up` and `darkroom doctor` ask."""

from models.statements import Statement

PING = Statement("SELECT 1")
CLOCK = Statement("SELECT clock_timestamp()")
SERVER_VERSION = Statement("SHOW server_version")
READ_ONLY = Statement("SHOW transaction_read_only")
DATABASE_EXISTS = Statement("SELECT 1 FROM pg_database WHERE datname = %s")
CREATE_DATABASE = Statement("CREATE DATABASE {}")
PROVIDER_PAUSE = Statement(
    "SELECT paused_at, reason, message, retry_at, probes FROM provider_status WHERE paused_at IS NOT NULL"
)
MISSING_RIGHTS = Statement("""
    SELECT name, string_agg(lacking, ', ' ORDER BY place) FROM unnest(%s::text[]) AS name
    CROSS JOIN unnest(%s::text[]) WITH ORDINALITY AS wanted (lacking, place)
    WHERE NOT has_table_privilege(name, lacking) GROUP BY name ORDER BY name
""")
ACCOUNTS = Statement("SELECT identity, difference FROM accounting")
AUDITED_ACCOUNTS = Statement("SELECT identity, difference FROM audit")
WITHOUT_TIMEOUT = Statement("SET LOCAL statement_timeout = 0")
OVERDUE_BY_STATE = Statement("""
    SELECT what, state, sum(number)::bigint AS rows, extract(epoch FROM max(late))::float8 AS late
    FROM overdue GROUP BY what, state ORDER BY late DESC
""")
