# syntax=docker/dockerfile:1
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY --link requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /venv \
 && /venv/bin/pip install -r requirements.txt
COPY . .

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="service" \
      org.opencontainers.image.version="1"
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=build /venv /venv
COPY --from=build --chown=1000:1000 /src /src
USER 1000
WORKDIR /src
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://localhost:8000')"]
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m"]
CMD ["service"]
