# One image for every darkroom process; docker-compose.yml says which.
ARG BASE=python:3.12-slim
FROM ${BASE}
WORKDIR /app
RUN python3 -m venv /venv && useradd --create-home darkroom && mkdir /data && chown darkroom /data
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
COPY pyproject.toml constraints.txt README.md ./
COPY cli cli
COPY fal_emulator fal_emulator
COPY front front
COPY intake intake
COPY migrations migrations
COPY models models
COPY webhook_receiver webhook_receiver
COPY worker worker
RUN pip install --no-cache-dir --constraint constraints.txt '.[emulator]'
USER darkroom
WORKDIR /data
VOLUME /data
