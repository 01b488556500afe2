# Modiste's images.
#   docker build .                    the service: no torch, not root
#   docker build --target offline .   data, training, evaluation, export
#   --build-arg EXTRAS=gpu            the CUDA builds of ONNX Runtime and FAISS
FROM python:3.11-slim AS base
ENV PATH=/opt/modiste/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --uid 10001 modiste && install --directory --owner modiste /data /data/bundles
WORKDIR /data

FROM base AS build
ARG EXTRAS=cpu
WORKDIR /src
# The lists name all that is needed, with hashes; nothing else is looked for.
RUN python -m venv /opt/modiste
COPY pyproject.toml README.md LICENSE modiste.py ./
COPY requirements requirements
COPY model_store model_store
COPY service service
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/service.txt -r requirements/${EXTRAS}.txt
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM build AS build-offline
COPY offline offline
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/offline.txt -r requirements/torch.txt
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM base AS offline
COPY --from=build-offline /opt/modiste /opt/modiste
ENV MODISTE_STORE=/data/bundles
VOLUME /data
USER modiste
ENTRYPOINT ["modiste"]
CMD ["--help"]

# Listening on all addresses needs MODISTE_API_KEYS.
FROM base AS service
COPY --from=build /opt/modiste /opt/modiste
ENV MODISTE_HOST=0.0.0.0 MODISTE_PORT=8000 MODISTE_STORE=/data/bundles
EXPOSE 8000
VOLUME /data
USER modiste
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"MODISTE_PORT\"]}/readyz', timeout=2)"]
ENTRYPOINT ["modiste"]
CMD ["serve"]
