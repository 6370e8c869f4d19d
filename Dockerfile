# A CPU image with the weights of the package: works without internet, as any user, and with a read-only root.
#   docker build -t dsclora .
#   docker run --rm --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" -v "$PWD:/pictures" dsclora upscale photo.jpg
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
# A compiler for the engine in C++; it stays out of the final image.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/dsclora && \
    /opt/dsclora/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu ".[heif,jxl]"

FROM python:3.11-slim
COPY --from=build /opt/dsclora /opt/dsclora
# Caches and records go to /tmp, as the root may be read-only and a user of any number has no home.
ENV PATH=/opt/dsclora/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 HF_HOME=/tmp/huggingface
USER 1000:1000
WORKDIR /pictures
ENTRYPOINT ["dsclora"]
CMD ["--help"]
