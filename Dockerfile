FROM python:3.12-slim AS build
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt

FROM python:3.12-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMNIDASH_DATA_DIR=/data \
    OMNIDASH_BIND=0.0.0.0:8000
RUN useradd --system --uid 10001 --no-create-home omnidash && install -d -m 0700 -o omnidash /data
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
USER omnidash
VOLUME /data
EXPOSE 8000
# Plain HTTP on the inside whatever TLS does outside: /healthz is never redirected.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:8000/healthz', headers={'Host': '127.0.0.1'}), timeout=2)"]
# serve sets the umask itself, runs migrations and ends its children on SIGTERM.
CMD ["python", "manage.py", "serve"]
