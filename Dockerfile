# One image for every darkroom process; docker-compose.yml says which.
ARG BASE=python:3.12.13-slim
FROM ${BASE}
LABEL org.opencontainers.image.title="darkroom" \
      org.opencontainers.image.description="Bulk image edits through fal's queue" \
      org.opencontainers.image.licenses="MIT"
WORKDIR /app
# a number of its own, so that files of the host can be made readable for it
RUN python3 -m venv /venv && useradd --create-home --uid 1000 darkroom && mkdir /data && chown darkroom /data
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY buffering buffering
COPY cli cli
COPY core core
COPY fal_emulator fal_emulator
COPY http_client http_client
COPY intake intake
COPY migrations migrations
COPY models models
COPY provider provider
COPY storage storage
COPY webhook_receiver webhook_receiver
COPY worker worker
RUN pip install --no-cache-dir --constraint constraints.txt '.[aws,emulator,tracing]'
USER darkroom
WORKDIR /data
